//! Event files for TensorBoard: scalars, histograms and images. The messages are those of
//! TensorFlow's `event.proto` and `summary.proto`, in the framing of its record files.

mod histogram;
mod png;
mod proto;
mod record;

pub use histogram::Histogram;
pub use png::heat_map;
pub use proto::{Event, HistogramProto, Image, Summary, Value};
pub use record::{frame, read_records};

use prost::Message as _;

/// The name of the event file in its directory. TensorBoard looks for `tfevents` in it.
pub const FILE_NAME: &str = "events.out.tfevents.mmopt";

/// The record that begins an event file.
pub fn header(wall_time: f64) -> Vec<u8> {
    let version = Some("brain.Event:2".to_owned());
    frame(&Event { wall_time, file_version: version, ..Event::default() }.encode_to_vec())
}

/// A record with values of one step.
pub fn event(wall_time: f64, step: u64, values: Vec<Value>) -> Vec<u8> {
    let summary = Some(Summary { value: values });
    frame(&Event { wall_time, step: step as i64, summary, ..Event::default() }.encode_to_vec())
}

/// A point of a curve.
pub fn scalar(tag: impl Into<String>, value: f64) -> Value {
    Value { tag: tag.into(), simple_value: Some(value as f32), ..Value::default() }
}

/// A histogram.
pub fn histogram(tag: impl Into<String>, histogram: &Histogram) -> Value {
    Value { tag: tag.into(), histo: Some(histogram.to_proto()), ..Value::default() }
}

/// An image of a square matrix of numbers from -1 (blue) over 0 (white) to 1 (red).
pub fn matrix_image(tag: impl Into<String>, matrix: &[f64], n: usize) -> Value {
    let (size, png) = heat_map(matrix, n);
    let side = size as i32;
    let image = Image { height: side, width: side, colorspace: 3, encoded_image_string: png };
    Value { tag: tag.into(), image: Some(image), ..Value::default() }
}
