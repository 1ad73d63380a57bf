//! The members of an ensemble: the best prompt in its directory, the others below it.

use std::path::{Path, PathBuf};

use crate::error::Result;
use crate::format::PASSPORT_FILE;
use anyhow::Context as _;

/// The directory of member `member` of the ensemble in `out`; the first is `out` itself.
pub fn member_dir(out: &Path, member: usize) -> PathBuf {
    if member == 0 { out.to_owned() } else { out.join(format!("member-{}", member + 1)) }
}

/// The directories of the ensemble in `out`, except `out` itself.
pub fn other_members(out: &Path) -> Vec<PathBuf> {
    (1..).map(|member| member_dir(out, member)).take_while(|dir| is_prompt(dir)).collect()
}

/// Removes the leftovers of an earlier, larger ensemble in `out`: the members from index `n`.
pub fn forget_members(out: &Path, n: usize) -> Result<()> {
    for dir in (n.max(1)..).map(|member| member_dir(out, member)).take_while(|dir| is_prompt(dir)) {
        std::fs::remove_dir_all(&dir).with_context(|| format!("cannot remove {}", dir.display()))?;
    }
    Ok(())
}

fn is_prompt(dir: &Path) -> bool {
    dir.join(PASSPORT_FILE).is_file()
}
