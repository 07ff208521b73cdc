//! `holdfast init`: moves the servers of a user's clients behind Holdfast, after showing what would change.
//!
//! What clients know about their servers goes into `mcp-servers.json` beside the configuration, readable by its owner
//! only: tokens stand in it as they stood in the clients' files. `holdfast.toml` imports it and holds no secrets, so that
//! it can be shown around and kept in git. Importing the clients' own files instead would leave nothing to import once
//! they point at Holdfast, and importing backups would break when those are tidied away.

mod gather;
mod plan;
mod rules;
mod undo;

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::Args;

use self::{
    gather::{Gathered, Points, Surroundings},
    plan::{Edit, Plan},
};
use super::{
    Done, Failure, Global, out,
    setup::{self, clients, count, failed, files, probe, short},
};
use crate::{
    config::{self, Config},
    inbox::visible::visible,
};

/// Arguments of `init`.
#[derive(Debug, Args)]
pub(super) struct InitArgs {
    /// Take the servers of this file only, and point its client at Holdfast; can be given more than once
    #[arg(long, value_name = "FILE")]
    from: Vec<PathBuf>,
    /// Do what is shown, with a backup beside each file
    #[arg(long)]
    apply: bool,
    /// Put the backups back, where nobody has changed the files since
    #[arg(long, conflicts_with_all = ["apply", "from", "offline"])]
    undo: bool,
    /// Do not start the servers to ask for their tools
    #[arg(long)]
    offline: bool,
}

/// How long a server may take to list its tools.
const LIMIT: Duration = Duration::from_secs(12);

/// Shows what would change, or does it.
///
/// # Errors
/// Files that cannot be understood or written.
pub(super) fn run(global: &Global, args: &InitArgs) -> Done {
    let home = setup::home()?;
    let config = config::place(global.config.as_deref());
    if args.undo {
        return undo::run(&config, &home);
    }
    let gathered = gather(args, &config, &home)?;
    let Some(plan) = plan(gathered, args, &config)? else { return Ok(ExitCode::SUCCESS) };
    for edit in &plan.edits {
        out::data(&edit.diff(&home));
    }
    plan.notes.iter().for_each(|note| out::talk(note));
    if args.apply {
        apply(&plan, &config, &home)?;
    } else {
        let again = std::env::args().skip(1).collect::<Vec<_>>().join(" ");
        out::talk(&format!("Nothing was changed. To do this: holdfast {again} --apply"));
    }
    Ok(ExitCode::SUCCESS)
}

fn gather(args: &InitArgs, config: &Path, home: &Path) -> Result<(Gathered, Option<Config>), Failure> {
    let here = std::env::current_dir().map_err(|error| unreadable(Path::new("."), &error))?;
    let project = clients::project(&here, home);
    let loaded = match config.exists() {
        true => Some(Config::load(Some(config))?.0),
        false => None,
    };
    let known = clients::places(home, &project, &setup::var);
    let from: Vec<PathBuf> = args.from.iter().map(|file| here.join(file)).collect();
    let files = match from.is_empty() {
        true => known.iter().map(|place| place.file.clone()).filter(|file| file.is_file()).collect(),
        false => from,
    };
    let around = Surroundings { home, project: &project, config: loaded.as_ref() };
    let mut gathered = Gathered::default();
    for file in &files {
        let text = match fs::read_to_string(file) {
            Ok(text) => text,
            Err(error) if args.from.is_empty() => {
                gathered
                    .notes
                    .push(format!("{} cannot be read and was left out: {error}", short(file, home)));
                continue;
            }
            Err(error) => return Err(unreadable(file, &error)),
        };
        match gathered.add(clients::owner(file, &known), file, text, &around) {
            Ok(()) => {}
            Err(problem) if args.from.is_empty() => {
                gathered.notes.push(format!("{} was left out:\n{problem}", short(file, home)));
            }
            Err(problem) => return Err(vec![problem].into()),
        }
    }
    Ok((gathered, loaded))
}

/// None: there is nothing to do, which was said.
fn plan(
    (gathered, loaded): (Gathered, Option<Config>),
    args: &InitArgs,
    config: &Path,
) -> Result<Option<Plan>, Failure> {
    let leaves = gathered.sources.iter().any(|source| !source.leaving.is_empty());
    if !leaves && gathered.moving.is_empty() {
        gathered.notes.iter().for_each(|note| out::talk(note));
        let pointing = gathered.sources.iter().filter(|source| source.points == Points::Here).count();
        if pointing == 0 {
            return Err(failed(
                "no servers were found in the files of your clients",
                "Add one by hand: holdfast add NAME -- COMMAND ARGS; or name a file: holdfast init --from FILE.",
            )
            .into());
        }
        out::talk(&format!("Nothing to do: {} at Holdfast already.", points(pointing)));
        return Ok(None);
    }
    let mut plan = Plan::new(gathered, loaded.as_ref(), config)?;
    let asked = if args.offline { Vec::new() } else { ask(&plan) };
    plan.write_rules(&asked, loaded.as_ref())?;
    Ok(Some(plan))
}

fn points(clients: usize) -> String {
    if clients == 1 { "your client points".to_owned() } else { format!("your {clients} clients point") }
}

/// Asks the servers that are new here, saying what happens.
fn ask(plan: &Plan) -> Vec<probe::Asked> {
    if plan.new.is_empty() {
        return Vec::new();
    }
    let seconds = LIMIT.as_secs();
    out::talk(&format!(
        "Asking {} for their tools, {seconds} s at most (--offline leaves that out):",
        count(plan.new.len(), "server")
    ));
    let width = plan.new.iter().map(|server| server.name.len()).max().unwrap_or(0);
    probe::ask(&plan.new, LIMIT, &|asked| {
        let what = match &asked.tools {
            Ok(tools) => count(tools.len(), "tool"),
            Err(why) => {
                let why = probe::plain(why, &asked.server).lines().next().unwrap_or_default();
                format!("no answer: {}", visible(why))
            }
        };
        out::talk(&format!("  {:width$}  {:>5.1} s  {what}", asked.server, asked.took.as_secs_f64()));
    })
}

fn apply(plan: &Plan, config: &Path, home: &Path) -> Result<(), Failure> {
    let folder = config.parent().unwrap_or(Path::new("/"));
    make_folder(folder).map_err(|error| unwritable(folder, &error))?;
    let record = undo::record(config);
    for edit in &plan.edits {
        let now = fs::read_to_string(&edit.file).ok();
        if now != edit.before {
            return Err(failed(
                format!(
                    "{} was changed while `init` ran, so it and what follows was left alone",
                    edit.file.display()
                ),
                "Run `holdfast init --apply` again.",
            )
            .into());
        }
        let done = files::change(
            &edit.file,
            &edit.after,
            edit.readers,
            &files::Noted { record: &record, parts: &edit.parts },
        );
        let backup = done
            .map_err(|error| failed(error.to_string(), "`holdfast init --undo` takes back what was done."))?;
        let kept = match &backup {
            Some(backup) => {
                format!("; as it was: {}", backup.file_name().unwrap_or_default().to_string_lossy())
            }
            None => String::new(),
        };
        out::talk(&format!("wrote {}{kept}", short(&edit.file, home)));
    }
    out::talk(
        "Done. Start your clients anew; Holdfast starts with the first of them.\n\
         Look: holdfast doctor   What waits for you: holdfast pending   Back: holdfast init --undo",
    );
    Ok(())
}

fn make_folder(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

fn unreadable(file: &Path, error: &io::Error) -> Failure {
    failed(format!("{} cannot be read: {error}", file.display()), "Check the path and its permissions.")
        .into()
}

fn unwritable(file: &Path, error: &io::Error) -> Failure {
    failed(format!("{} cannot be written: {error}", file.display()), "Check its permissions.").into()
}

impl Edit {
    fn diff(&self, home: &Path) -> String {
        let (before, after) =
            (self.shown(self.before.as_deref().unwrap_or_default()), self.shown(&self.after));
        let name = short(&self.file, home);
        let old = if self.before.is_some() { name.clone() } else { "/dev/null".to_owned() };
        let diff = similar::TextDiff::from_lines(&before, &after);
        diff.unified_diff().header(&old, &name).to_string().trim_end().to_owned()
    }
}
