//! The results as a Parquet file: a row for each question asked of each policy.

use std::io::Write;
use std::sync::Arc;

use parquet::column::writer::ColumnWriter;
use parquet::data_type::ByteArray;
use parquet::errors::{ParquetError, Result};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

use super::record::{Asked, Cell};
use super::report::Report;

/// Names and types; those that are optional are null where there is no such thing. Shares are from 0 to 1, NLL is in
/// nats, `ask` counts the questions of a prompt from 0.
const SCHEMA: &str = "message eval {
    required int64 protocol;
    required binary model (utf8);
    required binary model_sha256 (utf8);
    required binary precision (utf8);
    required binary kv_type (utf8);
    required binary question (utf8);
    required binary task (utf8);
    required int64 length;
    optional int64 depth;
    required int64 seed;
    required binary spec (utf8);
    required binary policy (utf8);
    optional binary budget (utf8);
    required int64 context_tokens;
    required int64 ask;
    optional boolean found;
    optional float nll;
    optional float span_kept;
    required float kept;
    required float kv_share;
}";

/// One question.
struct Line<'a> {
    cell: &'a Cell,
    policy: &'a str,
    budget: Option<&'a str>,
    at: usize,
    asked: &'a Asked,
}

/// A column of one type, with what is missing left out of the values.
enum Column {
    Text(Vec<Option<String>>),
    Whole(Vec<Option<i64>>),
    Number(Vec<Option<f32>>),
    Flag(Vec<Option<bool>>),
}

/// Writes the file and says what was wrong.
pub fn write<W: Write + Send>(report: &Report, out: W) -> Result<W> {
    let schema = Arc::new(parse_message_type(SCHEMA)?);
    let lines = lines(report);
    let mut writer = SerializedFileWriter::new(out, schema.clone(), Arc::new(WriterProperties::new()))?;
    let mut group = writer.next_row_group()?;
    for field in schema.get_fields() {
        let column = column(field.name(), &lines, report)
            .ok_or_else(|| ParquetError::General(format!("no column {}", field.name())))?;
        let optional = field.is_optional();
        let Some(mut to) = group.next_column()? else {
            return Err(ParquetError::General(format!("no place for column {}", field.name())));
        };
        put(to.untyped(), column, optional)?;
        to.close()?;
    }
    group.close()?;
    writer.into_inner()
}

fn lines(report: &Report) -> Vec<Line<'_>> {
    let line = |cell| {
        let cell: &Cell = cell;
        let row = report.rows.iter().find(|row| row.task == cell.key.task && row.spec == cell.key.spec);
        let (policy, budget) = row.map_or(("", None), |row| (row.policy.as_str(), row.budget.as_deref()));
        cell.result.asks.iter().enumerate().map(move |(at, asked)| Line { cell, policy, budget, at, asked })
    };
    report.cells.iter().flat_map(line).collect()
}

/// `None`: there is no such column.
fn column(name: &str, lines: &[Line], report: &Report) -> Option<Column> {
    let text = |of: for<'b> fn(&'b Line<'b>) -> &'b str| {
        Column::Text(lines.iter().map(|line| Some(of(line).to_owned())).collect())
    };
    let whole = |of: fn(&Line) -> Option<i64>| Column::Whole(lines.iter().map(of).collect());
    let number = |of: fn(&Line) -> Option<f32>| Column::Number(lines.iter().map(of).collect());
    Some(match name {
        "protocol" => whole(|line| Some(line.cell.key.protocol.into())),
        "model" => Column::Text(lines.iter().map(|_| Some(report.model.clone())).collect()),
        "model_sha256" => text(|line| &line.cell.key.model_sha256),
        "precision" => text(|line| &line.cell.key.precision),
        "kv_type" => text(|line| &line.cell.key.kv_type),
        "question" => text(|line| line.cell.key.question.name()),
        "task" => text(|line| &line.cell.key.task),
        "length" => whole(|line| Some(line.cell.key.length.into())),
        "depth" => whole(|line| line.cell.key.depth.map(i64::from)),
        "seed" => whole(|line| i64::try_from(line.cell.key.seed).ok()),
        "spec" => text(|line| &line.cell.key.spec),
        "policy" => text(|line| line.policy),
        "budget" => Column::Text(lines.iter().map(|line| line.budget.map(str::to_owned)).collect()),
        "context_tokens" => whole(|line| Some(line.cell.context_tokens.into())),
        "ask" => whole(|line| i64::try_from(line.at).ok()),
        "found" => Column::Flag(lines.iter().map(|line| line.asked.found).collect()),
        "nll" => number(|line| line.asked.nll),
        "span_kept" => number(|line| line.asked.span_kept),
        "kept" => number(|line| Some(line.cell.result.kept)),
        "kv_share" => number(|line| Some(line.cell.result.kv_share)),
        _ => return None,
    })
}

fn put(to: &mut ColumnWriter<'_>, column: Column, optional: bool) -> Result<()> {
    fn parts<T>(values: Vec<Option<T>>) -> (Vec<i16>, Vec<T>) {
        (values.iter().map(|value| i16::from(value.is_some())).collect(), values.into_iter().flatten().collect())
    }
    let levels = |levels: &[i16]| optional.then(|| levels.to_vec());
    let written = match (to, column) {
        (ColumnWriter::ByteArrayColumnWriter(to), Column::Text(values)) => {
            let (present, values) = parts(values);
            let values: Vec<ByteArray> = values.iter().map(|text| ByteArray::from(text.as_str())).collect();
            to.write_batch(&values, levels(&present).as_deref(), None)
        }
        (ColumnWriter::Int64ColumnWriter(to), Column::Whole(values)) => {
            let (present, values) = parts(values);
            to.write_batch(&values, levels(&present).as_deref(), None)
        }
        (ColumnWriter::FloatColumnWriter(to), Column::Number(values)) => {
            let (present, values) = parts(values);
            to.write_batch(&values, levels(&present).as_deref(), None)
        }
        (ColumnWriter::BoolColumnWriter(to), Column::Flag(values)) => {
            let (present, values) = parts(values);
            to.write_batch(&values, levels(&present).as_deref(), None)
        }
        _ => return Err(ParquetError::General("a column of another type than the schema says".into())),
    };
    written.map(|_| ())
}
