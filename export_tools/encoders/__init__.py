"""Pretrained encoders as frontends: wav2vec 1.0 and 2.0, HuBERT, WavLM, Whisper, BERT, RoBERTa."""
