"""Own kernels, for what no library does fast enough; built on the machine (`build.py`), and all works without."""
