# Device code, built twice from the same .cu files: by nvcc for GPUs, and by the host compiler against the emulation
# of tests/cuda_emulation, in three variants:
#   plain    fast
#   asan     address and undefined behaviour sanitizers
#   checked  races, uninitialised reads, bounds (every load and store of device code is looked at)
#
# OCTET_CUDA_FOUND       true when nvcc builds the real libraries
# OCTET_CUDA_VARIANTS    the emulated variants that are built; empty without NVIDIA's headers or tests

set(OCTET_ENABLE_CUDA "AUTO" CACHE STRING "Build CUDA code by nvcc: AUTO (when nvcc is found), ON, OFF")
set(OCTET_CUDA_ARCHITECTURES "AUTO" CACHE STRING "GPUs to build for: AUTO (those present, or sm_80, sm_90 and sm_100), or a CMake list")
option(OCTET_BUILD_CUDA_EMULATION "Run CUDA code in tests without a GPU (needs NVIDIA's headers and GCC)" ON)
option(OCTET_CUDA_COVERAGE "Count executed lines of the emulated libraries; plain variant only (tests/mutation/coverage.py)" OFF)

# --- nvcc and NCCL
set(OCTET_CUDA_FOUND OFF)
if(NOT OCTET_ENABLE_CUDA STREQUAL "OFF")
  find_program(OCTET_NVCC nvcc PATHS /usr/local/cuda/bin)
  if(OCTET_NVCC)
    get_filename_component(octet_cuda_root ${OCTET_NVCC} REALPATH)
    get_filename_component(octet_cuda_root ${octet_cuda_root}/../.. ABSOLUTE)
  endif()
  find_library(OCTET_NCCL nccl HINTS ${octet_cuda_root}/lib64 ${octet_cuda_root}/lib /usr/local/cuda/lib64)
  if(OCTET_NVCC AND OCTET_NCCL)
    set(OCTET_CUDA_FOUND ON)
  elseif(OCTET_ENABLE_CUDA STREQUAL "ON")
    message(FATAL_ERROR "OCTET_ENABLE_CUDA is ON, but nvcc (${OCTET_NVCC}) or NCCL (${OCTET_NCCL}) was not found")
  endif()
endif()

# The compute capabilities of this machine's GPUs as "90-real;..."; the supported generations when it has none.
function(octet_cuda_architectures result)
  set(list "")
  find_program(OCTET_NVIDIA_SMI nvidia-smi)
  if(OCTET_NVIDIA_SMI)
    execute_process(COMMAND ${OCTET_NVIDIA_SMI} --query-gpu=compute_cap --format=csv,noheader
                    OUTPUT_VARIABLE caps RESULT_VARIABLE failed ERROR_QUIET)
    if(NOT failed)
      string(REGEX MATCHALL "[0-9]+\\.[0-9]+" caps "${caps}")
      foreach(cap ${caps})
        string(REPLACE "." "" cap ${cap})
        list(APPEND list ${cap}-real)
      endforeach()
      list(REMOVE_DUPLICATES list)
    endif()
  endif()
  if(NOT list)
    set(list 80-real 90-real 100-real)
  endif()
  set(${result} "${list}" PARENT_SCOPE)
endfunction()

if(OCTET_CUDA_FOUND)
  set(CMAKE_CUDA_COMPILER ${OCTET_NVCC} CACHE FILEPATH "nvcc")
  set(architectures ${OCTET_CUDA_ARCHITECTURES})
  if(architectures STREQUAL "AUTO")
    octet_cuda_architectures(architectures)
  endif()
  set(CMAKE_CUDA_ARCHITECTURES ${architectures})
  if(OCTET_CCACHE)
    set(CMAKE_CUDA_COMPILER_LAUNCHER ${OCTET_CCACHE})
  endif()
  enable_language(CUDA)
  find_package(CUDAToolkit 12 REQUIRED)
  message(STATUS "CUDA: nvcc ${CMAKE_CUDA_COMPILER_VERSION}, for ${architectures}")
else()
  message(STATUS "CUDA: not built (OCTET_ENABLE_CUDA=${OCTET_ENABLE_CUDA}; it needs nvcc and NCCL)")
endif()

# Flags of device code. CMake before 3.25.2 does not know C++20 for nvcc, so it is said here. Spills and local memory are errors: they cost more than anything else in these kernels. The machine code stays
# uncompressed for the test that reads it.
set(OCTET_NVCC_FLAGS -fmad=false -lineinfo -no-compress -Werror=all-warnings
    -Xptxas=-warn-spills,-warn-lmem-usage,-Werror -Xcompiler=-Wall)
if(CMAKE_VERSION VERSION_LESS 3.25.2)
  list(PREPEND OCTET_NVCC_FLAGS -std=c++20)
endif()

# --- emulation
set(OCTET_CUDA_VARIANTS "")
foreach(directory ${CUDAToolkit_INCLUDE_DIRS} /usr/local/cuda/include)
  find_path(OCTET_CUDA_HEADERS cuda_runtime.h PATHS ${directory} NO_DEFAULT_PATH)
  find_path(OCTET_NCCL_HEADERS nccl.h PATHS ${directory} NO_DEFAULT_PATH)
endforeach()
find_path(OCTET_CUDA_HEADERS cuda_runtime.h)
find_path(OCTET_NCCL_HEADERS nccl.h)
if(NOT OCTET_BUILD_CUDA_EMULATION OR NOT OCTET_BUILD_TESTS)
  message(STATUS "CUDA emulation: off")
elseif(NOT EXISTS "${OCTET_CUDA_HEADERS}/cublasLt.h" OR NOT OCTET_NCCL_HEADERS)
  message(STATUS "CUDA emulation: off (it needs cuda_runtime.h, cublasLt.h and nccl.h)")
elseif(NOT CMAKE_CXX_COMPILER_ID STREQUAL "GNU" OR NOT CMAKE_SYSTEM_PROCESSOR STREQUAL "x86_64")
  message(STATUS "CUDA emulation: off (it needs GCC on x86-64)")
elseif(OCTET_SANITIZE OR OCTET_BUILD_FUZZERS)
  message(STATUS "CUDA emulation: off (it has sanitized variants of its own)")
else()
  set(OCTET_CUDA_VARIANTS plain asan checked)
  if(OCTET_CUDA_COVERAGE)
    set(OCTET_CUDA_VARIANTS plain)
  endif()
  message(STATUS "CUDA emulation: ${OCTET_CUDA_VARIANTS}")
endif()

set(OCTET_CUDA_EMULATION_DIR ${CMAKE_SOURCE_DIR}/tests/cuda_emulation)
# -fno-strict-aliasing: device code loads vectors through reinterpret_cast, as nvcc allows. v3: fmaf is an instruction.
set(octet_emulated_device_flags -DCUDA_EMU -I${OCTET_CUDA_EMULATION_DIR}/include
    -fno-strict-aliasing -Wno-unknown-pragmas -g -march=x86-64-v3)
set(octet_emulated_device_flags_plain -O2)
if(OCTET_CUDA_COVERAGE)
  set(octet_emulated_device_flags_plain -O0)  # a line that runs is a line that counts
endif()
set(octet_emulated_device_flags_asan -O1)
set(octet_emulated_device_flags_checked -O1 -fsanitize=thread --param=tsan-instrument-func-entry-exit=0
    --param=tsan-distinguish-volatile=1)
# GCC warns of what is not so when it sanitizes.
set(octet_emulated_host_flags_asan -fsanitize=address,undefined -fno-sanitize-recover=undefined
    -fno-omit-frame-pointer -Wno-maybe-uninitialized)

# Says in `result` what `variant` of each library in DEPS is to be linked.
function(octet_cuda_deps result variant)
  set(list "")
  foreach(dep ${ARGN})
    if(dep IN_LIST OCTET_CUDA_LIBRARIES)
      list(APPEND list ${dep}_emulated_${variant})
    else()
      list(APPEND list ${dep})
    endif()
  endforeach()
  set(${result} "${list}" PARENT_SCOPE)
endfunction()

# Adds the emulated build of CU_SOURCES and SOURCES to an existing target.
function(octet_cuda_emulated_sources target variant)
  cmake_parse_arguments(ARG "" "" "CU_SOURCES;SOURCES" ${ARGN})
  foreach(source ${ARG_CU_SOURCES})
    # A file of its own per variant: what CMake knows of a source file holds for the whole folder. As nvcc does, it
    # has the device language before the first line.
    set(wrapper ${CMAKE_CURRENT_BINARY_DIR}/${target}/${source}.cc)
    file(RELATIVE_PATH path ${CMAKE_SOURCE_DIR} ${CMAKE_CURRENT_SOURCE_DIR}/${source})
    file(CONFIGURE OUTPUT ${wrapper} CONTENT "#include <cuda_runtime.h>\n#include \"${path}\"\n")
    set_source_files_properties(${wrapper} PROPERTIES
      COMPILE_OPTIONS "${octet_emulated_device_flags};${octet_emulated_device_flags_${variant}}"
      OBJECT_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/${source})
    target_sources(${target} PRIVATE ${wrapper})
  endforeach()
  target_sources(${target} PRIVATE ${ARG_SOURCES})
  target_compile_options(${target} PRIVATE ${octet_emulated_host_flags_${variant}})
  target_link_options(${target} PUBLIC ${octet_emulated_host_flags_${variant}})
  target_include_directories(${target} SYSTEM PUBLIC ${OCTET_CUDA_HEADERS} ${OCTET_NCCL_HEADERS})
endfunction()

# octet_cuda_library(NAME CU_SOURCES a.cu ... SOURCES b.cc ... DEPS lib ... CUDA_LIBS cublas cublasLt nccl)
#   NAME                     by nvcc, when there is one (and NCCL, for what needs it)
#   NAME_emulated_<variant>  by the host compiler, for every variant
# CU_SOURCES are device code with the host functions that launch it; SOURCES are host code that calls CUDA's API and
# sees only NVIDIA's headers. DEPS that are such libraries themselves are linked in the same build.
function(octet_cuda_library name)
  cmake_parse_arguments(ARG "" "" "CU_SOURCES;SOURCES;DEPS;CUDA_LIBS" ${ARGN})
  set_property(GLOBAL APPEND PROPERTY octet_cuda_libraries ${name})
  get_property(OCTET_CUDA_LIBRARIES GLOBAL PROPERTY octet_cuda_libraries)
  set(real ${OCTET_CUDA_FOUND})
  if("nccl" IN_LIST ARG_CUDA_LIBS AND NOT (OCTET_NCCL AND OCTET_NCCL_HEADERS))
    set(real OFF)
  endif()
  foreach(dep ${ARG_DEPS})
    if(dep IN_LIST OCTET_CUDA_LIBRARIES AND NOT TARGET ${dep})
      set(real OFF)
    endif()
  endforeach()
  if(real)
    add_library(${name} STATIC ${ARG_CU_SOURCES} ${ARG_SOURCES})
    set_target_properties(${name} PROPERTIES CUDA_STANDARD 20 CUDA_STANDARD_REQUIRED OFF CUDA_EXTENSIONS OFF)
    target_compile_options(${name} PRIVATE "$<$<COMPILE_LANGUAGE:CUDA>:${OCTET_NVCC_FLAGS}>")
    target_include_directories(${name} SYSTEM PUBLIC ${CUDAToolkit_INCLUDE_DIRS})
    target_link_libraries(${name} PUBLIC octet_flags ${ARG_DEPS} CUDA::cudart_static)
    foreach(library ${ARG_CUDA_LIBS})
      if(library STREQUAL "nccl")
        target_include_directories(${name} SYSTEM PUBLIC ${OCTET_NCCL_HEADERS})
        target_link_libraries(${name} PUBLIC ${OCTET_NCCL})
      else()
        target_link_libraries(${name} PUBLIC CUDA::${library})
      endif()
    endforeach()
  endif()
  foreach(variant ${OCTET_CUDA_VARIANTS})
    set(target ${name}_emulated_${variant})
    add_library(${target} STATIC)
    octet_cuda_emulated_sources(${target} ${variant} CU_SOURCES ${ARG_CU_SOURCES} SOURCES ${ARG_SOURCES})
    octet_cuda_deps(deps ${variant} ${ARG_DEPS})
    target_link_libraries(${target} PUBLIC octet_flags ${deps} octet_cuda_emulation_${variant})
    if("nccl" IN_LIST ARG_CUDA_LIBS AND MPI_CXX_FOUND)
      target_link_libraries(${target} PUBLIC octet_cuda_emulation_nccl_${variant})
    endif()
    if(OCTET_CUDA_COVERAGE)
      target_compile_options(${target} PRIVATE --coverage -O0)
      target_link_options(${target} PUBLIC --coverage)
    endif()
  endforeach()
endfunction()

# octet_cuda_test(NAME SOURCES a_test.cc ... [CU_SOURCES b.cu ...] DEPS lib ... [VARIANTS plain ...] [ORDERS seq ...]
#                 [STREAMS lazy ...] [RANKS 1 2 ...] [ENVIRONMENT A=b ...] [TIMEOUT s] [NO_MAIN])
# One executable NAME_<variant> per variant (default all), and one ctest case per variant, order (default seq) and
# stream mode (default lazy): NAME_<variant>_<order>_<mode>, labels `emulated` and `emulated_<variant>`. With RANKS
# each case is started by mpirun once per number of ranks (suffix _n<ranks>); without MPI there is no such test. The
# test's own main() with NO_MAIN, otherwise GoogleTest's. NO_TEST: a program that another test starts. A second call
# with the same NAME and variant adds cases to the executable that is there.
function(octet_cuda_test name)
  cmake_parse_arguments(ARG "NO_MAIN;NO_TEST" "TIMEOUT" "SOURCES;CU_SOURCES;DEPS;VARIANTS;ORDERS;STREAMS;RANKS;ENVIRONMENT"
                        ${ARGN})
  if(ARG_RANKS AND NOT MPI_CXX_FOUND)
    return()
  endif()
  get_property(OCTET_CUDA_LIBRARIES GLOBAL PROPERTY octet_cuda_libraries)
  foreach(default "VARIANTS;${OCTET_CUDA_VARIANTS}" "ORDERS;seq" "STREAMS;lazy" "TIMEOUT;300")
    list(POP_FRONT default key)
    if(NOT ARG_${key})
      set(ARG_${key} ${default})
    endif()
  endforeach()
  foreach(variant ${ARG_VARIANTS})
    if(NOT variant IN_LIST OCTET_CUDA_VARIANTS)
      continue()
    endif()
    set(target ${name}_${variant})
    if(NOT TARGET ${target})
      add_executable(${target})
      octet_cuda_emulated_sources(${target} ${variant} CU_SOURCES ${ARG_CU_SOURCES} SOURCES ${ARG_SOURCES})
      octet_cuda_deps(deps ${variant} ${ARG_DEPS})
      target_link_libraries(${target} PRIVATE octet_flags ${deps} octet_cuda_emulation_${variant}
        GTest::gmock GTest::gtest $<$<NOT:$<BOOL:${ARG_NO_MAIN}>>:GTest::gtest_main> Threads::Threads)
      if(ARG_RANKS)
        target_link_libraries(${target} PRIVATE octet_cuda_emulation_nccl_${variant})
      endif()
      set_target_properties(${target} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests/bin)
    endif()
    if(ARG_NO_TEST)
      continue()
    endif()
    foreach(order ${ARG_ORDERS})
      foreach(mode ${ARG_STREAMS})
        octet_cuda_add_test(${target} ${variant} ${order} ${mode})
      endforeach()
    endforeach()
  endforeach()
endfunction()

# Registers one executable in one order and stream mode. A macro would leak names; ARG_* come from octet_cuda_test.
function(octet_cuda_add_test target variant order mode)
  set(env "OCTET_SOURCE_DIR=${CMAKE_SOURCE_DIR}" "OCTET_BINARY_DIR=${CMAKE_BINARY_DIR}" CUDA_EMU_ORDER=${order}
      CUDA_EMU_STREAMS=${mode} ${ARG_ENVIRONMENT})
  set(labels emulated emulated_${variant})
  set(test ${target}_${order}_${mode})
  if(NOT ARG_RANKS)
    add_test(NAME ${test} COMMAND ${target})
    set_tests_properties(${test} PROPERTIES LABELS "${labels}" TIMEOUT ${ARG_TIMEOUT} ENVIRONMENT "${env}")
    return()
  endif()
  foreach(ranks ${ARG_RANKS})
    add_test(NAME ${test}_n${ranks}
      COMMAND ${MPIEXEC_EXECUTABLE} -n ${ranks} ${OCTET_MPIRUN_FLAGS} $<TARGET_FILE:${target}>)
    # libmpi itself leaks at exit.
    set_tests_properties(${test}_n${ranks} PROPERTIES LABELS "${labels}" TIMEOUT ${ARG_TIMEOUT} PROCESSORS 2
      ENVIRONMENT "${env};${OCTET_MPI_ENVIRONMENT};ASAN_OPTIONS=detect_leaks=0")
  endforeach()
endfunction()

# octet_cuda_test_cases(NAME VARIANTS plain ... ORDERS seq ... STREAMS lazy ... [ENVIRONMENT A=b ...] [TIMEOUT s])
# More ctest cases of the executables of an octet_cuda_test (NO_TEST, or other orders and modes than its own).
function(octet_cuda_test_cases name)
  cmake_parse_arguments(ARG "" "TIMEOUT" "VARIANTS;ORDERS;STREAMS;ENVIRONMENT" ${ARGN})
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 300)
  endif()
  foreach(variant ${ARG_VARIANTS})
    if(NOT variant IN_LIST OCTET_CUDA_VARIANTS)
      continue()
    endif()
    foreach(order ${ARG_ORDERS})
      foreach(mode ${ARG_STREAMS})
        octet_cuda_add_test(${name}_${variant} ${variant} ${order} ${mode})
      endforeach()
    endforeach()
  endforeach()
endfunction()

# octet_cuda_machine_code_test(NAME LIBRARY lib [REQUIRE kernel_regex=HMMA,LDSM,LDGSTS ...] [ALLOW_LOCAL regex ...])
# Reads the machine code of an octet_cuda_library: no kernel may use local memory, every architecture's kernels that
# match a regex must hold each instruction named. Label emulated (it needs nvcc, but no GPU).
function(octet_cuda_machine_code_test name)
  cmake_parse_arguments(ARG "" "LIBRARY" "REQUIRE;ALLOW_LOCAL" ${ARGN})
  if(NOT OCTET_CUDA_FOUND)
    return()
  endif()
  find_package(Python3 COMPONENTS Interpreter REQUIRED)
  set(arguments "")
  foreach(rule ${ARG_REQUIRE})
    list(APPEND arguments --require ${rule})
  endforeach()
  foreach(rule ${ARG_ALLOW_LOCAL})
    list(APPEND arguments --allow-local ${rule})
  endforeach()
  add_test(NAME ${name} COMMAND ${Python3_EXECUTABLE} ${OCTET_CUDA_EMULATION_DIR}/machine_code_check.py
    $<TARGET_FILE:${ARG_LIBRARY}> ${arguments})
  set_tests_properties(${name} PROPERTIES LABELS emulated TIMEOUT 120)
endfunction()
