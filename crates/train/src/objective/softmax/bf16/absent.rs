//! Stands in for the kernel where the processor cannot have the instructions: no [`Instructions`]
//! can exist, so that nothing else here is ever called.
#![allow(dead_code, reason = "only the x86-64 kernel reads operands")]

use crate::kernel::product::Left;

pub(crate) type Pair = u32;
pub(crate) const LANES: usize = 16;

#[derive(Clone, Copy, Debug)]
pub(crate) enum Instructions {}

impl Instructions {
    pub(crate) fn detect() -> Option<Self> {
        None
    }

    pub(crate) fn pair_rows(self, _: &[f32], _: usize, _: &mut [Pair]) {
        match self {}
    }

    pub(crate) fn pair_columns(self, _: &[f32], _: usize, _: &mut [Pair]) {
        match self {}
    }

    pub(crate) fn product(
        self,
        _: &mut [f32],
        _: Left<'_, Pair>,
        _: &[Pair],
        _: (usize, usize, usize),
        _: bool,
    ) {
        match self {}
    }
}
