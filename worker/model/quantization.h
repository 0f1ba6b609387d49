// Which weights of a model are kept in 4 bits.
#ifndef OCTET_WORKER_MODEL_QUANTIZATION_H_
#define OCTET_WORKER_MODEL_QUANTIZATION_H_

namespace octet {

// Never: embedding, norms, output head.
struct Quantization {
  bool nf4 = false;   // experts and attention in NF4 (kernels/quant/nf4.h)
  bool gate = false;  // the routers' gates too
};

}  // namespace octet

#endif  // OCTET_WORKER_MODEL_QUANTIZATION_H_
