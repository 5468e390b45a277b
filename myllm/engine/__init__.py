"""Finding llama-server, or compiling it: its version, backends and devices.

find.py      which llama-server is used: the setting, the cache, PATH
build.py     compiles one into the cache; ensure.py does so when none is found
source.py    which llama.cpp tree is compiled: the user's checkout or the pinned sdist
toolchain.py the compiler, cmake, ninja and CUDA that compile it
checks.py    what `myllm doctor` says about all of these
"""
