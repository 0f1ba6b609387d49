// octet bench kernels on a backend: every operation of small steps of odd
// sizes, with experts that get no row, is timed without an error.
#ifndef OCTET_TESTS_LAUNCH_EVERY_OPERATION_H_
#define OCTET_TESTS_LAUNCH_EVERY_OPERATION_H_

#include "kernels/backend.h"

namespace octet::test {

void ExpectEveryOperationRuns(Backend& backend);

}  // namespace octet::test

#endif  // OCTET_TESTS_LAUNCH_EVERY_OPERATION_H_
