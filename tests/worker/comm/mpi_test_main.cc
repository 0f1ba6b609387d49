#include "tests/worker/comm/mpi_test_main.h"

#include <mpi.h>

#include <iostream>
#include <memory>

#include "gtest/gtest.h"

namespace octet::test {
namespace {

std::unique_ptr<MpiEnvironment>& Holder() {
  static std::unique_ptr<MpiEnvironment> environment;
  return environment;
}

class FailuresOnly : public ::testing::EmptyTestEventListener {
  void OnTestPartResult(const ::testing::TestPartResult& result) override {
    if (result.passed()) return;
    std::cerr << "rank " << Mpi().rank() << ": "
              << (result.file_name() ? result.file_name() : "") << ":"
              << result.line_number() << ": " << result.message() << std::endl;
  }
};

int Main(int argc, char** argv) {
  auto environment = MpiEnvironment::Init(&argc, &argv);
  if (!environment.ok()) {
    std::cerr << environment.status() << std::endl;
    return 1;
  }
  Holder() = std::move(*environment);
  ::testing::InitGoogleTest(&argc, argv);
  if (Mpi().rank() != 0) {
    auto& listeners = ::testing::UnitTest::GetInstance()->listeners();
    delete listeners.Release(listeners.default_result_printer());
    listeners.Append(new FailuresOnly);
  }
  const int code = RUN_ALL_TESTS();
  // A rank that leaves a broken group makes mpirun end the others: not before
  // they have said what they saw.
  MPI_Barrier(MPI_COMM_WORLD);
  Holder().reset();
  return code;
}

}  // namespace

MpiEnvironment& Mpi() { return *Holder(); }

}  // namespace octet::test

int main(int argc, char** argv) { return octet::test::Main(argc, argv); }
