//! Time of launches by the device's own clock.

use std::sync::Arc;

use super::Sizes;
use crate::backend::Result;
use crate::backend::cuda::device::{Device, Launch};

/// Nanoseconds that some launches, one after the other, take: the median. Runs follow each other in a graph, so that what
/// the host needs for a launch does not count.
pub fn time(device: &Arc<dyn Device>, sizes: &Sizes, launches: &[Launch<'_>]) -> Result<f64> {
    // kernels are made ready by their first launch, a graph by its first run
    launches.iter().try_for_each(|&launch| device.launch(launch))?;
    device.finish()?;
    device.begin_graph()?;
    let gathered = || {
        let start = device.mark()?;
        for _ in 0..sizes.runs {
            launches.iter().try_for_each(|&launch| device.launch(launch))?;
        }
        Ok((start, device.mark()?))
    };
    let marks = gathered();
    let graph = device.end_graph()?;
    let timed = marks.and_then(|(start, end)| {
        device.run_graph(graph)?;
        device.finish()?;
        let once = |_| {
            device.run_graph(graph)?;
            device.between(start, end)
        };
        (0..sizes.repeats).map(once).collect::<Result<Vec<u64>>>()
    });
    device.drop_graph(graph);
    let mut times = timed?;
    times.sort_unstable();
    Ok(times[times.len() / 2].max(1) as f64 / sizes.runs as f64)
}
