// Pictures of a training run, each as SVG and PNG (drawn by cairo): a curve of
// values over steps with its smoothed line, and a map of how many tokens went
// to which expert in which layer.
//
// Thread-safe. Files are written to a temporary name and renamed; errors name
// the file.
#ifndef OCTET_CLIENT_TRAIN_CHARTS_H_
#define OCTET_CLIENT_TRAIN_CHARTS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"

namespace octet {

struct Curve {
  std::string name;            // in the legend
  std::vector<double> steps;   // rising
  std::vector<double> values;  // as many; those that are not finite are gaps
};

struct CurveChart {
  std::string title;
  std::string x_label = "step";
  std::string y_label;
  std::vector<Curve> curves;
  bool smooth = true;  // a smoothed line over each pale raw one
};

// Writes `path_stem`.svg and `path_stem`.png.
absl::Status WriteCurveChart(const CurveChart& chart,
                             const std::string& path_stem);

struct ExpertMap {
  std::string title;
  int num_experts = 0;          // E
  std::vector<int64_t> tokens;  // [L, E]
};

// One cell per (layer, expert): its share of the layer's tokens times E, so 1
// is balance; and beside each layer the largest such load. Writes both files.
absl::Status WriteExpertMap(const ExpertMap& map, const std::string& path_stem);

}  // namespace octet

#endif  // OCTET_CLIENT_TRAIN_CHARTS_H_
