//! Which file of a crate uses which, and the circles among them.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::fmt;
use std::path::{Path, PathBuf};

use super::source::Segments;
use super::tree::{Target, Tree};

/// The first line of a file that uses an item of another, and the path by which it does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Use {
    pub line: usize,
    pub path: String,
}

/// Files that use each other: the edges of one circle in order.
#[derive(Debug)]
pub struct Circle(pub Vec<(PathBuf, PathBuf, Use)>);

/// An edge leads from a file to one that defines an item which the first uses.
///
/// A file is one module here, its inline modules included.
#[derive(Clone, Default)]
pub struct Graph {
    edges: BTreeMap<PathBuf, BTreeMap<PathBuf, Use>>,
}

impl Graph {
    /// The uses within one crate, its files by their path below `root`.
    pub fn of(tree: &Tree, root: &Path) -> Self {
        let mut graph = Self::default();
        for (id, module) in tree.modules.iter().enumerate() {
            let imports = module.source.imports.iter().filter(|import| !import.is_reexport);
            let imported = imports.map(|import| (&import.segments, import.line, false));
            let mentions = module.source.mentions.iter();
            let mentioned =
                mentions.map(|mention| (&mention.segments, mention.line, mention.is_macro));
            for (segments, line, is_macro) in imported.chain(mentioned) {
                for target in tree.resolve(id, segments, is_macro) {
                    if let Target::Item(owner) = target {
                        graph.add(root, &module.file, &tree.modules[owner].file, segments, line);
                    }
                }
            }
        }
        graph
    }

    fn add(&mut self, root: &Path, from: &Path, to: &Path, segments: &Segments, line: usize) {
        if from == to {
            return;
        }
        let below = |file: &Path| file.strip_prefix(root).unwrap_or(file).to_owned();
        let known = self.edges.entry(below(from)).or_default().entry(below(to));
        let found = Use { line, path: segments.join("::") };
        known
            .and_modify(|first| {
                if line < first.line {
                    *first = found.clone();
                }
            })
            .or_insert(found);
    }

    /// Every use of a file for which `to` holds in one for which `from` holds.
    pub fn uses(&self, from: impl Fn(&Path) -> bool, to: impl Fn(&Path) -> bool) -> Vec<String> {
        let users = self.edges.iter().filter(|(file, _)| from(file));
        let edges =
            users.flat_map(|(user, used)| used.iter().map(move |(used, by)| (user, used, by)));
        let unwanted = edges.filter(|(_, used, _)| to(used));
        unwanted.map(|(user, used, by)| describe(user, used, by)).collect()
    }

    /// The circles, the shortest first, until removing one edge of each leaves none.
    pub fn circles(mut self) -> Vec<Circle> {
        let mut found = Vec::new();
        while let Some(circle) = self.shortest_circle() {
            let (from, to, _) = circle.0.last().expect("a circle has edges");
            self.edges.entry(from.clone()).or_default().remove(to);
            found.push(circle);
        }
        found
    }

    /// The files that are part of any circle.
    pub fn knotted(&self) -> BTreeSet<PathBuf> {
        let files = self.edges.keys().filter(|file| self.circle_from(file).is_some());
        files.cloned().collect()
    }

    fn shortest_circle(&self) -> Option<Circle> {
        let circles = self.edges.keys().filter_map(|file| self.circle_from(file));
        circles.min_by_key(|circle| circle.0.len())
    }

    /// The shortest way from `start` back to it.
    fn circle_from(&self, start: &PathBuf) -> Option<Circle> {
        let mut reached_from: HashMap<&PathBuf, &PathBuf> = HashMap::new();
        let mut waiting = VecDeque::from([start]);
        while let Some(file) = waiting.pop_front() {
            for next in self.edges.get(file).into_iter().flat_map(BTreeMap::keys) {
                if !reached_from.contains_key(next) {
                    reached_from.insert(next, file);
                    waiting.push_back(next);
                }
            }
        }
        let mut edges = Vec::new();
        let mut to = start;
        loop {
            let from = *reached_from.get(to)?;
            edges.push((from.clone(), to.clone(), self.edges[from][to].clone()));
            to = from;
            if to == start {
                edges.reverse();
                return Some(Circle(edges));
            }
        }
    }
}

fn describe(user: &Path, used: &Path, by: &Use) -> String {
    format!("{}:{}: `{}` of {}", user.display(), by.line, by.path, used.display())
}

impl fmt::Display for Circle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a circle of {}:", self.0.len())?;
        self.0
            .iter()
            .try_for_each(|(user, used, by)| write!(f, "\n    {}", describe(user, used, by)))
    }
}
