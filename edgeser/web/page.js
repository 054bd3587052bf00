// Shows what the server sends: {type: "hello" | "event" | "activity" | "end", ...}.
"use strict";

const WINDOW_S = 120; // what the timeline shows
const QUIETEST_DBFS = -70;
const LINES = 500;
const $ = (id) => document.getElementById(id);
let labels = [];
let events = [];
let ended = false;
let wait = 500;

const colour = (label) => `var(--c${Math.max(0, labels.indexOf(label)) % 8})`;
const clock = (s) => `${Math.floor(s / 60)}:${String(Math.floor(s % 60)).padStart(2, "0")}`;

function element(tag, text, parent) {
  const made = document.createElement(tag);
  made.textContent = text; // never innerHTML: what was said is no markup
  parent?.append(made);
  return made;
}

function state(text, wrong = false) {
  $("state").textContent = text;
  $("state").classList.toggle("wrong", wrong);
}

function begin(message) {
  labels = message.labels;
  events = [];
  ended = false;
  $("title").textContent = message.title;
  $("transcript").replaceChildren();
  $("legend").replaceChildren();
  for (const label of labels) {
    const entry = element("span", label, $("legend"));
    const swatch = document.createElement("i");
    swatch.style.background = colour(label);
    entry.prepend(swatch);
  }
  state("live");
  draw();
}

function bars(event) {
  $("bars").replaceChildren();
  for (const label of labels) {
    const share = event[`p_${label}`];
    element("span", label, $("bars"));
    const bar = element("div", "", $("bars"));
    bar.className = "bar";
    bar.style.background = colour(label);
    bar.style.width = `${100 * share}%`;
    element("span", `${Math.round(100 * share)}%`, $("bars")).className = "share";
  }
  const trusted = event.confidence === null ? "" : `right with ${Math.round(100 * event.confidence)}% probability`;
  $("confidence").textContent = event.label === "unsure" ? `unsure: ${trusted}` : trusted;
}

function draw() {
  const timeline = $("timeline");
  timeline.replaceChildren();
  const last = events.length ? events[events.length - 1].end_s : 0;
  const first = Math.max(0, last - WINDOW_S);
  for (const event of events) {
    if (event.end_s < first) continue;
    const share = event[`p_${event.label}`];
    if (share === undefined) continue; // no speech, or unsure
    const block = element("div", "", timeline);
    block.setAttribute("role", "listitem");
    block.title = `${clock(event.start_s)} ${event.label} ${Math.round(100 * share)}%`;
    block.setAttribute("aria-label", block.title);
    block.style.left = `${(100 * Math.max(0, event.start_s - first)) / WINDOW_S}%`;
    block.style.width = `${(100 * (event.end_s - Math.max(event.start_s, first))) / WINDOW_S}%`;
    block.style.height = `${100 * share}%`;
    block.style.background = colour(event.label);
  }
}

function write(event) {
  const line = document.createElement("li");
  const when = element("time", clock(event.start_s), line);
  when.title = `${event.start_s.toFixed(1)} to ${event.end_s.toFixed(1)} s, answered in ${Math.round(event.latency_ms)} ms`;
  if (event.confidence !== null) when.title += `, right with ${Math.round(100 * event.confidence)}% probability`;
  element("b", event.label, line).style.borderColor = colour(event.label);
  const said = element("span", "", line);
  event.words.forEach(([text], i) => {
    element(event.mattered[i] ? "mark" : "span", text, said);
    said.append(" ");
  });
  if (!event.words.length) {
    said.className = "none";
    said.textContent = ["doubtful", "late", "failed"].includes(event.words_from) ? `(words ${event.words_from})` : "(no words)";
  }
  $("transcript").prepend(line);
  while ($("transcript").childElementCount > LINES) $("transcript").lastElementChild.remove();
}

const receive = {
  hello: begin,
  event(message) {
    bars(message);
    if (message.partial) return;
    events.push(message);
    events = events.slice(-LINES);
    write(message);
    draw();
  },
  activity(message) {
    const level = Math.min(1, Math.max(0, 1 - message.level_dbfs / QUIETEST_DBFS));
    $("level").style.width = `${100 * level}%`;
    $("meter").setAttribute("aria-valuenow", Math.max(QUIETEST_DBFS, Math.round(message.level_dbfs)));
    $("now").classList.toggle("speaking", message.speaking);
    $("voice").textContent = message.speaking ? "speaking" : "silence";
  },
  end(message) {
    ended = true;
    state(message.why || "ended", Boolean(message.why));
  },
};

function connect() {
  const scheme = location.protocol === "https:" ? "wss:" : "ws:";
  const socket = new WebSocket(`${scheme}//${location.host}/events${location.search}`);
  socket.onopen = () => (wait = 500);
  socket.onmessage = (incoming) => {
    const message = JSON.parse(incoming.data);
    receive[message.type]?.(message);
  };
  socket.onclose = () => {
    if (ended) return;
    state("disconnected, trying again…", true);
    setTimeout(connect, wait);
    wait = Math.min(2 * wait, 10000);
  };
}

connect();
