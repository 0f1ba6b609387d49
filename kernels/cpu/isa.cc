#include "kernels/cpu/isa.h"

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdint>

#include "absl/strings/str_cat.h"

namespace octet::cpu {
namespace {

struct CpuId {
  uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
};

CpuId Query(uint32_t leaf, uint32_t subleaf) {
  CpuId id;
  __get_cpuid_count(leaf, subleaf, &id.eax, &id.ebx, &id.ecx, &id.edx);
  return id;
}

bool Bit(uint32_t word, int bit) { return (word >> bit) & 1u; }

// Register states that the operating system saves (XCR0).
uint64_t EnabledStates() {
  uint32_t low, high;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (static_cast<uint64_t>(high) << 32) | low;
}

// Linux hands out the 8 KiB of tile data only to processes that ask.
bool AskForTiles() {
  constexpr long kArchReqXcompPerm = 0x1023;
  constexpr long kTileData = 18;
  return syscall(SYS_arch_prctl, kArchReqXcompPerm, kTileData) == 0;
}

std::vector<Isa> Detect() {
  std::vector<Isa> isas;
  const CpuId basic = Query(1, 0);
  if (!Bit(basic.ecx, 27)) return isas;  // OSXSAVE: may XCR0 be read?
  const uint64_t states = EnabledStates();
  const CpuId extended = Query(7, 0);
  const CpuId extended1 = Query(7, 1);

  const bool avx2 = (states & 0x6) == 0x6 && Bit(basic.ecx, 12) &&  // FMA
                    Bit(basic.ecx, 29) &&                           // F16C
                    Bit(extended.ebx, 5);
  if (!avx2) return isas;
  isas.push_back(Isa::kAvx2);
  const bool avx512 = (states & 0xe0) == 0xe0 && Bit(extended.ebx, 16) &&  // F
                      Bit(extended.ebx, 17) &&                             // DQ
                      Bit(extended.ebx, 30) &&                             // BW
                      Bit(extended.ebx, 31);                               // VL
  if (!avx512) return isas;
  isas.push_back(Isa::kAvx512);
  if (!Bit(extended1.eax, 5)) return isas;
  isas.push_back(Isa::kAvx512Bf16);
  const bool amx = (states & 0x60000) == 0x60000 &&  // tile config and data
                   Bit(extended.edx, 24) &&          // AMX-TILE
                   Bit(extended.edx, 22);            // AMX-BF16
  if (amx && AskForTiles()) isas.push_back(Isa::kAmx);
  return isas;
}

const std::vector<Isa>& Detected() {
  static const std::vector<Isa>& isas = *new std::vector<Isa>(Detect());
  return isas;
}

constexpr Isa kAll[] = {Isa::kAvx2, Isa::kAvx512, Isa::kAvx512Bf16, Isa::kAmx};

}  // namespace

absl::string_view Name(Isa isa) {
  switch (isa) {
    case Isa::kAvx2:
      return "avx2";
    case Isa::kAvx512:
      return "avx512";
    case Isa::kAvx512Bf16:
      return "avx512_bf16";
    case Isa::kAmx:
      return "amx";
  }
  return "unknown";
}

Isa BestIsa() { return Detected().empty() ? Isa::kAvx2 : Detected().back(); }

std::vector<Isa> SupportedIsas() { return Detected(); }

absl::StatusOr<Isa> ParseIsa(absl::string_view name) {
  std::string known;
  for (Isa isa : kAll) {
    if (Name(isa) == name) return isa;
    absl::StrAppend(&known, known.empty() ? "" : ", ", Name(isa));
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "instruction set '", name, "' is unknown, expected one of ", known));
}

}  // namespace octet::cpu
