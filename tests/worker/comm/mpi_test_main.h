// main() of tests whose ranks are MPI processes: every rank runs the same
// tests; rank 0 prints them, the others only their failures. mpirun fails when
// any rank does.
#ifndef OCTET_TESTS_WORKER_COMM_MPI_TEST_MAIN_H_
#define OCTET_TESTS_WORKER_COMM_MPI_TEST_MAIN_H_

#include "worker/comm/mpi/mpi_environment.h"

namespace octet::test {

// Of this process; lives as long as main().
MpiEnvironment& Mpi();

}  // namespace octet::test

#endif  // OCTET_TESTS_WORKER_COMM_MPI_TEST_MAIN_H_
