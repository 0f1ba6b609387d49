#include "kernels/cpu/isa.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace octet::cpu {
namespace {

TEST(IsaTest, SupportedIsasAreAPrefixInRisingOrder) {
  const std::vector<Isa> isas = SupportedIsas();
  for (size_t i = 0; i < isas.size(); ++i) {
    EXPECT_EQ(static_cast<size_t>(isas[i]), i);
  }
  if (!isas.empty()) {
    EXPECT_EQ(BestIsa(), isas.back());
  }
}

TEST(IsaTest, NamesParseBack) {
  for (Isa isa : {Isa::kAvx2, Isa::kAvx512, Isa::kAvx512Bf16, Isa::kAmx}) {
    const auto parsed = ParseIsa(Name(isa));
    ASSERT_TRUE(parsed.ok()) << parsed.status();
    EXPECT_EQ(*parsed, isa);
  }
}

TEST(IsaTest, UnknownNameListsTheKnownOnes) {
  const auto parsed = ParseIsa("sse9");
  EXPECT_EQ(parsed.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(parsed.status().message(),
            "instruction set 'sse9' is unknown, expected one of avx2, avx512, "
            "avx512_bf16, amx");
}

}  // namespace
}  // namespace octet::cpu
