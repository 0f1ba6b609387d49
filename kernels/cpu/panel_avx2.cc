// Compiled with -mavx2 -mfma: only what runs behind a check of the processor
// may stand here.
#include "kernels/cpu/panel_kernels-inl.h"

namespace octet::cpu {

const PanelKernels kAvx2Panels = MakePanelKernels();

}  // namespace octet::cpu
