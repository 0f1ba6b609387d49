#include "client/train/canvas.h"

#include <cairo-svg.h>
#include <cairo.h>

#include <cstdio>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace octet {
namespace {

absl::Status Draw(cairo_surface_t* surface, const std::string& path, int width,
                  int height, const std::function<void(Canvas&)>& draw) {
  cairo_t* cairo = cairo_create(surface);
  Canvas canvas(cairo);
  canvas.Rectangle(0, 0, width, height, {1, 1, 1});
  draw(canvas);
  const cairo_status_t status = cairo_status(cairo);
  cairo_destroy(cairo);
  if (status == CAIRO_STATUS_SUCCESS) return absl::OkStatus();
  return absl::InternalError(absl::StrCat(
      path, ": cannot be drawn: ", cairo_status_to_string(status)));
}

absl::Status Written(cairo_status_t status, const std::string& temporary,
                     const std::string& path) {
  if (status == CAIRO_STATUS_SUCCESS &&
      std::rename(temporary.c_str(), path.c_str()) == 0) {
    return absl::OkStatus();
  }
  std::remove(temporary.c_str());
  return absl::UnavailableError(
      absl::StrCat(path, ": cannot be written",
                   status == CAIRO_STATUS_SUCCESS
                       ? ""
                       : absl::StrCat(": ", cairo_status_to_string(status))));
}

}  // namespace

void Canvas::Rectangle(double x, double y, double width, double height,
                       Color fill) {
  cairo_set_source_rgba(cairo_, fill.red, fill.green, fill.blue, fill.alpha);
  cairo_rectangle(cairo_, x, y, width, height);
  cairo_fill(cairo_);
}

void Canvas::Line(double x1, double y1, double x2, double y2, Color color,
                  double width) {
  MoveTo(x1, y1);
  LineTo(x2, y2);
  Stroke(color, width);
}

void Canvas::MoveTo(double x, double y) { cairo_move_to(cairo_, x, y); }

void Canvas::LineTo(double x, double y) { cairo_line_to(cairo_, x, y); }

void Canvas::Stroke(Color color, double width) {
  cairo_set_source_rgba(cairo_, color.red, color.green, color.blue,
                        color.alpha);
  cairo_set_line_width(cairo_, width);
  cairo_set_line_join(cairo_, CAIRO_LINE_JOIN_ROUND);
  cairo_stroke(cairo_);
}

void Canvas::Text(double x, double y, const std::string& text, double size,
                  Align align, Color color) {
  cairo_select_font_face(cairo_, "sans-serif", CAIRO_FONT_SLANT_NORMAL,
                         CAIRO_FONT_WEIGHT_NORMAL);
  cairo_set_font_size(cairo_, size);
  cairo_text_extents_t extents;
  cairo_text_extents(cairo_, text.c_str(), &extents);
  const double shift = align == Align::kLeft     ? 0
                       : align == Align::kCenter ? extents.x_advance / 2
                                                 : extents.x_advance;
  cairo_set_source_rgba(cairo_, color.red, color.green, color.blue,
                        color.alpha);
  cairo_move_to(cairo_, x - shift, y + 0.35 * size);
  cairo_show_text(cairo_, text.c_str());
  cairo_new_path(cairo_);
}

void Canvas::UpwardText(double x, double y, const std::string& text,
                        double size, Color color) {
  cairo_save(cairo_);
  cairo_translate(cairo_, x, y);
  cairo_rotate(cairo_, -1.5707963267948966);
  Text(0, 0, text, size, Align::kCenter, color);
  cairo_restore(cairo_);
}

absl::Status WritePage(const std::string& path_stem, int width, int height,
                       const std::function<void(Canvas&)>& draw) {
  const std::string svg_path = absl::StrCat(path_stem, ".svg");
  const std::string svg_temporary = absl::StrCat(svg_path, ".tmp");
  cairo_surface_t* svg =
      cairo_svg_surface_create(svg_temporary.c_str(), width, height);
  absl::Status status = Draw(svg, svg_path, width, height, draw);
  cairo_surface_finish(svg);
  const cairo_status_t svg_status = cairo_surface_status(svg);
  cairo_surface_destroy(svg);
  if (!status.ok()) std::remove(svg_temporary.c_str());
  OCTET_RETURN_IF_ERROR(status);
  OCTET_RETURN_IF_ERROR(Written(svg_status, svg_temporary, svg_path));

  const std::string png_path = absl::StrCat(path_stem, ".png");
  const std::string png_temporary = absl::StrCat(png_path, ".tmp");
  cairo_surface_t* png =
      cairo_image_surface_create(CAIRO_FORMAT_RGB24, width, height);
  const absl::Cleanup destroy = [png] { cairo_surface_destroy(png); };
  OCTET_RETURN_IF_ERROR(Draw(png, png_path, width, height, draw));
  return Written(cairo_surface_write_to_png(png, png_temporary.c_str()),
                 png_temporary, png_path);
}

}  // namespace octet
