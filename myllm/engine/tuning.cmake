# Included by CMake after each project() of llama.cpp (CMAKE_PROJECT_INCLUDE): what MyLLM changes
# about how llama.cpp is compiled. No file of llama.cpp is edited.
#
# MYLLM_UNITY: compile several files as one, which takes half the time. It is for the pinned
# source: in another version two files may define the same name, and would not compile together.

if(NOT CMAKE_CURRENT_SOURCE_DIR STREQUAL CMAKE_SOURCE_DIR)
    return()
endif()

# How many files of a target are compiled as one. The models of llama and mtmd are short, and share
# nearly all of what they include; the others are kept so small that two compilers end together, each
# within 1.3 GB.
set(unity_batch_of_llama 16)
set(unity_batch_of_mtmd 16)
set(unity_batch_of_llama-common 8)
set(unity_batch_of_server-context 6)
set(unity_batch_of_llama-server-impl 6)
# Routing, reading pictures and sounds, and building their graphs: a small part of any request.
set(rarely_run mtmd llama-server-impl cpp-httplib)
# These specialize what others have instantiated, or refuse the headers of their neighbours.
set(never_in_unity "common/json\\.cpp$|mtmd-helper")

# Calls `tune_target(<target>)` for every target of `folder` and of the folders below it.
function(tune_targets folder)
    get_property(targets DIRECTORY "${folder}" PROPERTY BUILDSYSTEM_TARGETS)
    foreach(target IN LISTS targets)
        tune_target("${target}")
    endforeach()
    get_property(folders DIRECTORY "${folder}" PROPERTY SUBDIRECTORIES)
    foreach(below IN LISTS folders)
        tune_targets("${below}")
    endforeach()
endfunction()

function(tune_target target)
    get_target_property(type "${target}" TYPE)
    if(NOT type MATCHES "LIBRARY|EXECUTABLE" OR type STREQUAL "INTERFACE_LIBRARY")
        return()
    endif()
    # Only ggml and llama compute. The rest is compiled faster by lower levels, and runs as fast
    # with -O2; with -O1 everywhere a short answer of a tiny model takes 4 % more CPU.
    if(target IN_LIST rarely_run)
        target_compile_options("${target}" PRIVATE $<$<COMPILE_LANGUAGE:C,CXX>:-O1>)
    elseif(NOT target MATCHES "^ggml" AND NOT target STREQUAL "llama")
        target_compile_options("${target}" PRIVATE $<$<COMPILE_LANGUAGE:C,CXX>:-O2>)
    endif()
    set(in_unity FALSE)
    if(MYLLM_UNITY AND DEFINED unity_batch_of_${target})
        set(in_unity TRUE)
        set_target_properties(
            "${target}" PROPERTIES
            UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE ${unity_batch_of_${target}})
    endif()
    get_target_property(sources "${target}" SOURCES)
    get_target_property(place "${target}" SOURCE_DIR)
    foreach(source IN LISTS sources)
        cmake_path(ABSOLUTE_PATH source BASE_DIRECTORY "${place}")
        tune_source("${target}" "${source}" ${in_unity})
    endforeach()
endfunction()

function(tune_source target source in_unity)
    if(source MATCHES "/amx/[^/]*\\.cpp$")
        # gcc's _tile_loadconfig names only 8 of the 64 bytes that it reads. The stores to the
        # others, which hold the rows and columns of the tiles, then count as dead and are removed,
        # and the first AMX instruction dies of SIGILL. Without these two passes the stores stay.
        # Set, not appended: the CPU variants of a portable build share their files.
        set_property(
            SOURCE "${source}" TARGET_DIRECTORY "${target}"
            PROPERTY COMPILE_OPTIONS -fno-tree-dse -fno-dse)
    endif()
    if(in_unity)
        set(skip OFF)
        if(source MATCHES "${never_in_unity}")
            set(skip ON)
        endif()
        set_property(
            SOURCE "${source}" TARGET_DIRECTORY "${target}"
            PROPERTY SKIP_UNITY_BUILD_INCLUSION ${skip})
    endif()
endfunction()

# At the end, when all targets are known.
cmake_language(DEFER CALL tune_targets "${CMAKE_SOURCE_DIR}")
