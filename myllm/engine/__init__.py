"""Finding llama-server, or compiling it: its version, backends and devices.

engine.py        a llama-server that can be run, and the devices that it lists
find.py          which llama-server is used: the setting, the cache, PATH
probe.py         asks a llama-server for its version and devices
ensure.py        finds or compiles an engine that passes the self-check
selfcheck.py     checks that an engine works on this CPU; selfcheck_result.py keeps the result,
                 quantize.py writes the models to check it with
build.py         compiles an engine into the cache (cache.py); build_options.py has the flags,
                 build_errors.py the reasons why a build fails
source.py        which llama.cpp tree is compiled: the user's checkout or the pinned sdist
pinned_source.py which llama.cpp is pinned; fetch.py and unpack.py provide its tree
toolchain.py     the compiler, cmake, ninja and CUDA
doctor_checks.py what `myllm doctor` reports about all of these
tuning.cmake     what MyLLM changes about the build of llama.cpp
"""
