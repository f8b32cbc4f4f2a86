//! A checkpoint's sections, as the trainer's state reads them: base and increments, checked.
//!
//! Must never know: what is inside a section.

use crate::checkpoint::Checkpoint;
use millrace_train::saved::{Damaged, SavedBytes, SavedPart, TakePart};

/// What gives the parts of any section of `checkpoint`, by its name, one file after the other. Its
/// errors: a section that is missing or damaged, and what the taker finds.
pub fn of(checkpoint: &Checkpoint) -> impl Fn(&str, TakePart<'_>) -> Result<(), Damaged> {
    |name, take| read(checkpoint, name, take)
}

fn read(checkpoint: &Checkpoint, name: &str, take: TakePart<'_>) -> Result<(), Damaged> {
    let unreadable = |error| Damaged(format!("{error:#}"));
    for file in checkpoint.files(name).map_err(unreadable)? {
        let mut reader = file.reader().map_err(unreadable)?;
        let bytes = SavedBytes::new(&mut reader, file.length());
        let taken = take(match file.is_increment {
            true => SavedPart::Increment(bytes),
            false => SavedPart::Whole(bytes),
        });
        // A damaged file says more than what its taker makes of it.
        reader.finish().map_err(unreadable)?;
        taken?;
    }
    Ok(())
}
