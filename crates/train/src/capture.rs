//! The protocol by which a part of the state is copied while training goes on.

/// A part of the state that is copied as it is at one step, while training goes on.
pub trait Capture {
    /// A whole copy.
    type Copy;

    /// Begins to copy what there is now.
    ///
    /// # Panics
    /// If a copy is under way.
    fn begin_capture(&mut self);

    /// Copies at most `share` more, in the part's own unit, and takes that off `share`. The part as
    /// it was at the beginning, once its copy is complete.
    fn advance_capture(&mut self, share: &mut usize) -> Option<Self::Copy>;

    /// Gives up a copy that is under way.
    fn cancel_capture(&mut self);
}
