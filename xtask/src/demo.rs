//! x
use anyhow::Result;
#[derive(clap::Args)]
pub(crate) struct Args {}
pub(crate) fn main(_: &Args) -> Result<()> {
    Ok(())
}
pub(crate) struct World;
impl World {
    pub(crate) fn console_url(&self) -> String {
        String::new()
    }
    pub(crate) fn password(&self) -> &str {
        ""
    }
}
pub(crate) fn once(_: usize) -> Result<World> {
    Ok(World)
}
