"""From a Whisper model to graphs that give words: keys and values of what was heard, and one decoder step."""
