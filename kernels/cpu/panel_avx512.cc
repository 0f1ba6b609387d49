// Compiled with -mavx512f and its companions: only what runs behind a check of
// the processor may stand here.
#include "kernels/cpu/panel_kernels-inl.h"

namespace octet::cpu {

const PanelKernels kAvx512Panels = MakePanelKernels();

}  // namespace octet::cpu
