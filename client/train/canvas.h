// A page that is drawn once and written as SVG or PNG. Units are pixels, y
// points down. Internal to client/train.
#ifndef OCTET_CLIENT_TRAIN_CANVAS_H_
#define OCTET_CLIENT_TRAIN_CANVAS_H_

#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

typedef struct _cairo cairo_t;

namespace octet {

struct Color {
  double red = 0, green = 0, blue = 0, alpha = 1;
};

enum class Align { kLeft, kCenter, kRight };

class Canvas {
 public:
  explicit Canvas(cairo_t* cairo) : cairo_(cairo) {}

  void Rectangle(double x, double y, double width, double height, Color fill);
  void Line(double x1, double y1, double x2, double y2, Color color,
            double width);
  // A path: the first point of each piece moves, the others draw.
  void MoveTo(double x, double y);
  void LineTo(double x, double y);
  void Stroke(Color color, double width);
  // `y` is the middle of the text's height.
  void Text(double x, double y, const std::string& text, double size,
            Align align, Color color);
  // The same, read upwards.
  void UpwardText(double x, double y, const std::string& text, double size,
                  Color color);

 private:
  cairo_t* cairo_;
};

// Draws the page twice, into `path_stem`.svg and `path_stem`.png.
absl::Status WritePage(const std::string& path_stem, int width, int height,
                       const std::function<void(Canvas&)>& draw);

}  // namespace octet

#endif  // OCTET_CLIENT_TRAIN_CANVAS_H_
