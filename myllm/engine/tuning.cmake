# Included by CMake after each project() of llama.cpp (CMAKE_PROJECT_INCLUDE): what MyLLM changes
# about how llama.cpp is compiled. No file of llama.cpp is edited, so it holds for any checkout.

if(NOT CMAKE_CURRENT_SOURCE_DIR STREQUAL CMAKE_SOURCE_DIR)
    return()
endif()

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
    get_target_property(sources "${target}" SOURCES)
    get_target_property(place "${target}" SOURCE_DIR)
    foreach(source IN LISTS sources)
        if(source MATCHES "amx/[^/]*\\.cpp$")
            keep_tile_configuration("${target}" "${place}" "${source}")
        endif()
    endforeach()
endfunction()

# gcc's _tile_loadconfig names only 8 of the 64 bytes that it reads. The stores to the others,
# which hold the rows and columns of the tiles, then count as dead and are removed, and the first
# AMX instruction dies of SIGILL. Without these two passes the stores stay.
function(keep_tile_configuration target place source)
    cmake_path(ABSOLUTE_PATH source BASE_DIRECTORY "${place}")
    set_property(
        SOURCE "${source}" TARGET_DIRECTORY "${target}"
        APPEND PROPERTY COMPILE_OPTIONS -fno-tree-dse -fno-dse)
endfunction()

# At the end, when all targets are known.
cmake_language(DEFER CALL tune_targets "${CMAKE_SOURCE_DIR}")
