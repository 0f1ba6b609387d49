#include "client/train/charts.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/train/canvas.h"
#include "client/train/smoothing.h"

namespace octet {
namespace {

constexpr int kWidth = 800, kHeight = 480;
constexpr double kLeft = 78, kRight = 24, kTop = 48, kBottom = 56;
constexpr Color kInk{0.15, 0.15, 0.18};
constexpr Color kGrid{0.85, 0.85, 0.88};
constexpr Color kColors[] = {{0.12, 0.38, 0.72},
                             {0.83, 0.33, 0.10},
                             {0.17, 0.55, 0.24},
                             {0.50, 0.25, 0.60}};

struct Range {
  double low = std::numeric_limits<double>::infinity();
  double high = -std::numeric_limits<double>::infinity();

  void Add(double value) {
    if (!std::isfinite(value)) return;
    low = std::min(low, value);
    high = std::max(high, value);
  }
  // Never empty, and never a single point.
  void Widen() {
    if (low > high) low = 0, high = 1;
    const double margin =
        high > low ? 0.04 * (high - low) : std::max(0.5, 0.1 * std::abs(low));
    low -= margin;
    high += margin;
  }
};

// About five round numbers inside the range: 1, 2 or 5 times a power of ten.
std::vector<double> Ticks(const Range& range) {
  const double rough = (range.high - range.low) / 5;
  const double power = std::pow(10.0, std::floor(std::log10(rough)));
  double step = power;
  for (const double factor : {2.0, 5.0, 10.0}) {
    if (step < rough) step = power * factor;
  }
  std::vector<double> ticks;
  for (double i = std::ceil(range.low / step); i * step <= range.high; ++i) {
    ticks.push_back(i * step + 0.0);  // never -0
  }
  return ticks;
}

// Draws curves into the plot's area; values and steps are in the data's units.
class Plot {
 public:
  Plot(Canvas& canvas, const CurveChart& chart)
      : canvas_(canvas), chart_(chart) {
    for (const Curve& curve : chart.curves) {
      for (const double step : curve.steps) x_.Add(step);
      for (const double value : curve.values) y_.Add(value);
    }
    x_.Widen();
    y_.Widen();
  }

  void Draw() {
    canvas_.Text(kWidth / 2.0, kTop / 2, chart_.title, 16, Align::kCenter,
                 kInk);
    DrawAxes();
    for (size_t i = 0; i < chart_.curves.size(); ++i) DrawCurve(i);
  }

 private:
  double X(double step) const {
    return kLeft +
           (step - x_.low) / (x_.high - x_.low) * (kWidth - kLeft - kRight);
  }
  double Y(double value) const {
    return kHeight - kBottom -
           (value - y_.low) / (y_.high - y_.low) * (kHeight - kTop - kBottom);
  }

  void DrawAxes() {
    const double right = kWidth - kRight, bottom = kHeight - kBottom;
    for (const double tick : Ticks(x_)) {
      canvas_.Line(X(tick), kTop, X(tick), bottom, kGrid, 1);
      canvas_.Text(X(tick), bottom + 14, absl::StrFormat("%g", tick), 12,
                   Align::kCenter, kInk);
    }
    for (const double tick : Ticks(y_)) {
      canvas_.Line(kLeft, Y(tick), right, Y(tick), kGrid, 1);
      canvas_.Text(kLeft - 8, Y(tick), absl::StrFormat("%g", tick), 12,
                   Align::kRight, kInk);
    }
    canvas_.Line(kLeft, bottom, right, bottom, kInk, 1);
    canvas_.Line(kLeft, kTop, kLeft, bottom, kInk, 1);
    canvas_.Text((kLeft + right) / 2, kHeight - 16, chart_.x_label, 13,
                 Align::kCenter, kInk);
    canvas_.UpwardText(18, (kTop + bottom) / 2, chart_.y_label, 13, kInk);
  }

  void DrawCurve(size_t index) {
    const Curve& curve = chart_.curves[index];
    Color color = kColors[index % std::size(kColors)];
    const double y = kTop + 14 + 18 * static_cast<double>(index);
    canvas_.Line(kWidth - 190, y, kWidth - 166, y, color, 2.5);
    canvas_.Text(kWidth - 160, y, curve.name, 12, Align::kLeft, kInk);
    if (chart_.smooth) {
      Stroke(curve.steps, Smooth(curve.values), color, 2.2);
      color.alpha = 0.35;
    }
    Stroke(curve.steps, curve.values, color, chart_.smooth ? 1.1 : 2.2);
  }

  void Stroke(const std::vector<double>& steps,
              const std::vector<double>& values, Color color, double width) {
    bool drawing = false;
    for (size_t i = 0; i < steps.size(); ++i) {
      if (!std::isfinite(values[i])) {
        drawing = false;
      } else if (drawing) {
        canvas_.LineTo(X(steps[i]), Y(values[i]));
      } else {
        canvas_.MoveTo(X(steps[i]), Y(values[i]));
        drawing = true;
      }
    }
    canvas_.Stroke(color, width);
  }

  Canvas& canvas_;
  const CurveChart& chart_;
  Range x_, y_;
};

// White at no load, the deep end at `load` 2 and above; 1 is balance.
Color LoadColor(double load) {
  const double t = std::clamp(load / 2, 0.0, 1.0);
  return {1 - 0.88 * t, 1 - 0.62 * t, 1 - 0.28 * t};
}

void DrawExpertMap(Canvas& canvas, const ExpertMap& map, double cell) {
  const int experts = map.num_experts;
  const int layers = static_cast<int>(map.tokens.size()) / experts;
  const double left = 76, top = 72;
  canvas.Text(left, 22, map.title, 15, Align::kLeft, kInk);
  canvas.Text(left, 42,
              "share of the layer's tokens times experts: 1 = balance", 11,
              Align::kLeft, kInk);
  for (int expert = 0; expert < experts; ++expert) {
    canvas.Text(left + (expert + 0.5) * cell, top - 10,
                absl::StrCat("e", expert), 11, Align::kCenter, kInk);
  }
  canvas.Text(left + experts * cell + 30, top - 10, "max", 11, Align::kCenter,
              kInk);
  for (int layer = 0; layer < layers; ++layer) {
    const double y = top + layer * cell;
    double sum = 0, largest = 0;
    for (int e = 0; e < experts; ++e) sum += map.tokens[layer * experts + e];
    canvas.Text(left - 8, y + cell / 2, absl::StrCat("layer ", layer), 11,
                Align::kRight, kInk);
    for (int e = 0; e < experts; ++e) {
      const double load =
          sum > 0 ? map.tokens[layer * experts + e] * experts / sum : 0;
      largest = std::max(largest, load);
      canvas.Rectangle(left + e * cell, y, cell - 1, cell - 1, LoadColor(load));
      canvas.Text(left + (e + 0.5) * cell, y + cell / 2,
                  absl::StrFormat("%.2f", load), 10, Align::kCenter,
                  load > 1.5 ? Color{1, 1, 1} : kInk);
    }
    canvas.Text(left + experts * cell + 30, y + cell / 2,
                absl::StrFormat("%.2f", largest), 11, Align::kCenter, kInk);
  }
}

}  // namespace

absl::Status WriteCurveChart(const CurveChart& chart,
                             const std::string& path_stem) {
  for (const Curve& curve : chart.curves) {
    if (curve.steps.size() == curve.values.size()) continue;
    return absl::InvalidArgumentError(absl::StrCat(
        path_stem, ": curve '", curve.name, "' has ", curve.values.size(),
        " values, expected ", curve.steps.size(), ", one a step"));
  }
  return WritePage(path_stem, kWidth, kHeight,
                   [&](Canvas& canvas) { Plot(canvas, chart).Draw(); });
}

absl::Status WriteExpertMap(const ExpertMap& map,
                            const std::string& path_stem) {
  if (map.num_experts < 1 || map.tokens.empty() ||
      map.tokens.size() % map.num_experts != 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        path_stem, ": ", map.tokens.size(), " counts of ", map.num_experts,
        " experts, expected some for every expert of every layer"));
  }
  const double cell = 44;
  const int layers = static_cast<int>(map.tokens.size()) / map.num_experts;
  const int width =
      std::max(420, static_cast<int>(76 + map.num_experts * cell + 70));
  const int height = static_cast<int>(72 + layers * cell + 20);
  return WritePage(path_stem, width, height,
                   [&](Canvas& canvas) { DrawExpertMap(canvas, map, cell); });
}

}  // namespace octet
