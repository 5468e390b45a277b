"""Finding llama-server, or compiling it: its version, backends and devices.

find.py      which llama-server is used: the setting, the cache, PATH
build.py     compiles one into the cache; tuning.cmake is what we change about llama.cpp's build
selfcheck.py proves that one works on this CPU; verdict.py remembers it, quantize.py helps
ensure.py    all of these together: an engine that is found or compiled, and proven
source.py    which llama.cpp tree is compiled: the user's checkout or the pinned sdist
toolchain.py the compiler, cmake, ninja and CUDA that compile it
checks.py    what `myllm doctor` says about all of these
"""
