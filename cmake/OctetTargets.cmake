# The two ways a target is declared in this project, so that flags are said once.

add_library(octet_flags INTERFACE)
# -ffp-contract=off: fused multiply-adds are written, never chosen by the compiler, so that a row's bits
# do not depend on whether it fell into a vector loop or its tail.
target_compile_options(octet_flags INTERFACE
  $<$<COMPILE_LANGUAGE:C,CXX>:-Wall> $<$<COMPILE_LANGUAGE:C,CXX>:-Wextra> $<$<COMPILE_LANGUAGE:C,CXX>:-Werror>
  $<$<COMPILE_LANGUAGE:C,CXX>:-ffp-contract=off>)
target_include_directories(octet_flags INTERFACE ${CMAKE_SOURCE_DIR})
if(OCTET_SANITIZE)
  target_compile_options(octet_flags INTERFACE -fsanitize=${OCTET_SANITIZE} -fno-omit-frame-pointer
                         -fno-sanitize-recover=all -g)
  target_link_options(octet_flags INTERFACE -fsanitize=${OCTET_SANITIZE})
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    # GCC warns of what is not so when it sanitizes.
    target_compile_options(octet_flags INTERFACE -Wno-maybe-uninitialized)
  endif()
endif()
if(OCTET_BUILD_FUZZERS)
  target_compile_options(octet_flags INTERFACE -fsanitize=fuzzer-no-link)
endif()

# octet_library(NAME SOURCES a.cc ... DEPS lib ...)
function(octet_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS" ${ARGN})
  add_library(${name} STATIC ${ARG_SOURCES})
  target_link_libraries(${name} PUBLIC octet_flags ${ARG_DEPS})
endfunction()

# Built by name: the tests that ThreadSanitizer can judge (label tsan: no gRPC in them), and the fuzzers.
add_custom_target(octet_tsan_tests)
add_custom_target(octet_fuzzers)

# octet_test(NAME SOURCES a_test.cc ... DEPS lib ... [LABELS l ...] [TIMEOUT s] [COMMAND ...] [WHOLE])
# One executable; by default each TEST is one ctest case. COMMAND replaces the way it is started (mpirun).
# WHOLE registers the executable as one ctest case (for tests that share a costly set-up).
function(octet_test name)
  cmake_parse_arguments(ARG "WHOLE" "TIMEOUT" "SOURCES;DEPS;LABELS;COMMAND;ENVIRONMENT" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE octet_flags ${ARG_DEPS} GTest::gmock GTest::gtest Threads::Threads)
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests/bin)
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 300)
  endif()
  if(NOT ARG_LABELS)
    set(ARG_LABELS unit)
  endif()
  if(ARG_ENVIRONMENT AND NOT ARG_COMMAND AND NOT ARG_WHOLE)
    message(FATAL_ERROR "${name}: ENVIRONMENT needs WHOLE: gtest_discover_tests breaks lists up")
  endif()
  # One word, "unit_tsan", for the same reason; ctest -L takes a pattern, so it is found under both.
  list(JOIN ARG_LABELS "_" labels)
  if("tsan" IN_LIST ARG_LABELS)
    add_dependencies(octet_tsan_tests ${name})
  endif()
  if(ARG_COMMAND)
    target_link_libraries(${name} PRIVATE $<$<NOT:$<BOOL:${ARG_WHOLE}>>:GTest::gtest_main>)
    add_test(NAME ${name} COMMAND ${ARG_COMMAND} $<TARGET_FILE:${name}>)
  elseif(ARG_WHOLE)
    target_link_libraries(${name} PRIVATE GTest::gtest_main)
    add_test(NAME ${name} COMMAND ${name})
  else()
    target_link_libraries(${name} PRIVATE GTest::gtest_main)
    include(GoogleTest)
    gtest_discover_tests(${name} DISCOVERY_MODE PRE_TEST DISCOVERY_TIMEOUT 60
      PROPERTIES LABELS "${labels}" TIMEOUT ${ARG_TIMEOUT})
    return()
  endif()
  set_tests_properties(${name} PROPERTIES LABELS "${labels}" TIMEOUT ${ARG_TIMEOUT} ENVIRONMENT "${ARG_ENVIRONMENT}")
endfunction()

# octet_mpi_test(NAME RANKS 1 2 ... SOURCES a_test.cc ... DEPS lib ... [TIMEOUT s]): one executable, registered once
# per number of ranks as NAME_n<ranks>, label mpi. All ranks run on this machine, more than it has cores if need be.
set(OCTET_MPI_ENVIRONMENT OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1)
set(OCTET_MPIRUN_FLAGS --oversubscribe --bind-to none --mca btl vader,self)
function(octet_mpi_test name)
  cmake_parse_arguments(ARG "" "TIMEOUT" "SOURCES;DEPS;RANKS" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE octet_flags ${ARG_DEPS} GTest::gmock GTest::gtest Threads::Threads)
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests/bin)
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 120)
  endif()
  # libmpi itself leaks at exit.
  set(env ${OCTET_MPI_ENVIRONMENT} ASAN_OPTIONS=detect_leaks=0)
  foreach(ranks ${ARG_RANKS})
    add_test(NAME ${name}_n${ranks} COMMAND ${MPIEXEC_EXECUTABLE} -n ${ranks} ${OCTET_MPIRUN_FLAGS} $<TARGET_FILE:${name}>)
    set_tests_properties(${name}_n${ranks} PROPERTIES LABELS mpi TIMEOUT ${ARG_TIMEOUT} ENVIRONMENT "${env}" PROCESSORS 2)
  endforeach()
endfunction()

# octet_fuzzer(NAME SOURCES x_fuzz.cc DEPS lib ...): a libFuzzer target, and without libFuzzer a replayer of
# the corpus in tests/fuzz/corpus/NAME that runs as a test.
function(octet_fuzzer name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE octet_flags ${ARG_DEPS})
  add_dependencies(octet_fuzzers ${name})
  if(OCTET_BUILD_FUZZERS)
    target_link_options(${name} PRIVATE -fsanitize=fuzzer)
  else()
    target_sources(${name} PRIVATE ${CMAKE_SOURCE_DIR}/tests/fuzz/replay_main.cc)
    add_test(NAME ${name} COMMAND ${name} ${CMAKE_SOURCE_DIR}/tests/fuzz/corpus/${name})
    set_tests_properties(${name} PROPERTIES LABELS "fuzz" TIMEOUT 120)
  endif()
endfunction()
