//! The names of one directory, sorted, cheap to copy on write.
//!
//! A drive's whole tree of names is kept in memory. Readers work on a version of it while the next one is
//! made, so names lie in shared groups: a change copies one group of the directory, not the directory, and
//! two versions are compared by skipping the groups they share.

use super::attributes::Stat;
use super::leaf::Leaf;
use super::record::Attributes;
use std::sync::Arc;

/// Names in a group. Larger groups cost more per change, smaller ones more per directory.
const GROUP: usize = 128;

/// What is stored under a name. A name may be a file and a directory at once; then the directory is shown
/// as long as there is a file or link somewhere in it, and the file waits.
#[derive(Debug, Clone)]
pub enum Node {
    Leaf(Leaf),
    Directory(Arc<Dir>),
    Both(Arc<Dir>, Box<Leaf>),
}

impl Node {
    /// The directory of this name, if there is one, shown or not.
    pub fn dir(&self) -> Option<&Arc<Dir>> {
        match self {
            Node::Leaf(_) => None,
            Node::Directory(dir) | Node::Both(dir, _) => Some(dir),
        }
    }

    /// The same with another directory.
    pub(super) fn with_dir(&self, dir: Dir) -> Self {
        match self.leaf() {
            Some(leaf) => Node::Both(Arc::new(dir), Box::new(leaf.clone())),
            None => Node::Directory(Arc::new(dir)),
        }
    }

    /// The entry of this name, shown or not.
    pub fn leaf(&self) -> Option<&Leaf> {
        match self {
            Node::Leaf(leaf) => Some(leaf),
            Node::Directory(_) => None,
            Node::Both(_, leaf) => Some(leaf),
        }
    }
}

#[derive(Debug, Clone)]
struct Slot {
    name: Box<str>,
    node: Node,
}

/// See the module.
#[derive(Debug, Clone, Default)]
pub struct Dir {
    groups: Vec<Arc<Vec<Slot>>>,
    len: usize,
    /// Files, links and special nodes at any depth.
    pub(super) leaves: u64,
    /// Whether it stays though nothing is in it.
    pub(super) kept: bool,
    /// Whether the drive has a record that it does.
    pub(super) recorded: bool,
    /// What is said of it; none if nothing is.
    pub(super) own: Option<Box<Attributes>>,
}

impl Dir {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether it is there for its own sake, not only for what is in it.
    pub fn is_kept(&self) -> bool {
        self.kept
    }

    /// Mode, time and id: what is said of it, or what goes without saying.
    pub fn stat(&self) -> Stat {
        self.own.as_deref().map_or(Attributes::default().stat, |own| own.stat)
    }

    /// What is said of it; none if nothing is.
    pub fn attributes(&self) -> Option<&Attributes> {
        self.own.as_deref()
    }

    pub fn get(&self, name: &str) -> Option<&Node> {
        let (group, at) = self.position(name).ok()?;
        Some(&self.groups[group][at].node)
    }

    /// Names with what they stand for, in byte order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Node)> {
        let slots = self.groups.iter().flat_map(|group| group.iter());
        slots.map(|slot| (&*slot.name, &slot.node))
    }

    /// Whether the path of something in it, from it on and with the slash that it begins with, has more bytes than this.
    pub fn is_longer(&self, most: usize) -> bool {
        let mut todo = vec![(self, 0)];
        while let Some((dir, len)) = todo.pop() {
            for (name, node) in dir.iter() {
                let len = len + 1 + name.len();
                if len > most {
                    return true;
                }
                todo.extend(node.dir().map(|dir| (&**dir, len)));
            }
        }
        false
    }

    /// From now on it is there because of what is in it, and nothing is said of it.
    pub(super) fn let_go(&mut self) {
        (self.kept, self.recorded, self.own) = (false, false, None);
    }

    /// Sets the entry of a name, whether or not it is a directory too, and returns the one it had.
    pub(super) fn set_leaf(&mut self, name: &str, leaf: Leaf) -> Option<Leaf> {
        let node = match self.position(name) {
            Ok(place) => self.node_mut(place),
            Err(place) => {
                self.insert(place, name, Node::Leaf(leaf));
                return None;
            }
        };
        match node {
            Node::Leaf(old) => Some(std::mem::replace(old, leaf)),
            Node::Both(_, old) => Some(std::mem::replace(old, leaf)),
            Node::Directory(dir) => {
                *node = Node::Both(Arc::clone(dir), Box::new(leaf));
                None
            }
        }
    }

    /// The directory of a name, made if there is none.
    pub(super) fn open(&mut self, name: &str) -> &mut Dir {
        let place = match self.position(name) {
            Ok(place) => place,
            Err(place) => self.insert(place, name, Node::Directory(Arc::default())),
        };
        let node = self.node_mut(place);
        if let Node::Leaf(leaf) = node {
            *node = Node::Both(Arc::default(), Box::new(leaf.clone()));
        }
        match node {
            Node::Directory(dir) | Node::Both(dir, _) => Arc::make_mut(dir),
            Node::Leaf(_) => unreachable!("a leaf was just given a directory"),
        }
    }

    /// Puts a node under a name, or takes the name out.
    pub(super) fn replace(&mut self, name: &str, node: Option<Node>) {
        match (self.position(name), node) {
            (Ok(place), Some(node)) => *self.node_mut(place) = node,
            (Err(place), Some(node)) => drop(self.insert(place, name, node)),
            (Ok((group, at)), None) => {
                let slots = Arc::make_mut(&mut self.groups[group]);
                slots.remove(at);
                if slots.is_empty() {
                    self.groups.remove(group);
                }
                self.len -= 1;
            }
            (Err(_), None) => {}
        }
    }

    fn node_mut(&mut self, (group, at): (usize, usize)) -> &mut Node {
        &mut Arc::make_mut(&mut self.groups[group])[at].node
    }

    /// Group and place in it: of the name, or where it belongs.
    fn position(&self, name: &str) -> Result<(usize, usize), (usize, usize)> {
        let after = self.groups.partition_point(|group| *group[0].name <= *name);
        let Some(group) = after.checked_sub(1) else { return Err((0, 0)) };
        match self.groups[group].binary_search_by(|slot| (*slot.name).cmp(name)) {
            Ok(at) => Ok((group, at)),
            Err(at) => Err((group, at)),
        }
    }

    fn insert(
        &mut self,
        (mut group, mut at): (usize, usize),
        name: &str,
        node: Node,
    ) -> (usize, usize) {
        self.len += 1;
        let slot = Slot { name: name.into(), node };
        if self.groups.is_empty() {
            self.groups.reserve_exact(1);
            self.groups.push(Arc::default());
        } else if self.groups[group].len() >= GROUP {
            // Names that come in order fill their groups.
            let middle = if at == GROUP { GROUP } else { GROUP / 2 };
            let upper = Arc::make_mut(&mut self.groups[group]).split_off(middle);
            self.groups.insert(group + 1, Arc::new(upper));
            if at >= middle {
                (group, at) = (group + 1, at - middle);
            }
        }
        let slots = Arc::make_mut(&mut self.groups[group]);
        if slots.is_empty() {
            // Most directories of a deep tree hold one name; a vector takes room for four otherwise.
            slots.reserve_exact(1);
        }
        slots.insert(at, slot);
        (group, at)
    }
}

/// Directories of a hostile drive lie two thousand deep; freeing them level by level would need as much
/// stack.
impl Drop for Dir {
    fn drop(&mut self) {
        let mut groups = std::mem::take(&mut self.groups);
        while let Some(group) = groups.pop() {
            for slot in Arc::into_inner(group).unwrap_or_default() {
                if let Node::Directory(dir) | Node::Both(dir, _) = slot.node
                    && let Some(mut dir) = Arc::into_inner(dir)
                {
                    groups.append(&mut dir.groups);
                }
            }
        }
    }
}

/// Walks two versions of a directory name by name and tells those that are not the very same slot.
pub(super) fn differences<'a>(
    old: &'a Dir,
    new: &'a Dir,
    mut tell: impl FnMut(&'a str, Option<&'a Node>, Option<&'a Node>),
) {
    let (mut l, mut r) = (Cursor::new(old), Cursor::new(new));
    loop {
        if l.at == 0
            && r.at == 0
            && let (Some(left), Some(right)) = (l.group(), r.group())
            && Arc::ptr_eq(left, right)
        {
            l.group += 1;
            r.group += 1;
            continue;
        }
        match (l.slot(), r.slot()) {
            (None, None) => return,
            (Some(left), Some(right)) if left.name == right.name => {
                tell(&left.name, Some(&left.node), Some(&right.node));
                l.step();
                r.step();
            }
            (Some(left), right) if right.is_none_or(|right| left.name < right.name) => {
                tell(&left.name, Some(&left.node), None);
                l.step();
            }
            (_, Some(right)) => {
                tell(&right.name, None, Some(&right.node));
                r.step();
            }
            (Some(_), None) => unreachable!("told as removed above"),
        }
    }
}

struct Cursor<'a> {
    dir: &'a Dir,
    group: usize,
    at: usize,
}

impl<'a> Cursor<'a> {
    fn new(dir: &'a Dir) -> Self {
        Self { dir, group: 0, at: 0 }
    }

    fn group(&self) -> Option<&'a Arc<Vec<Slot>>> {
        self.dir.groups.get(self.group)
    }

    fn slot(&self) -> Option<&'a Slot> {
        self.group()?.get(self.at)
    }

    fn step(&mut self) {
        self.at += 1;
        if self.group().is_some_and(|group| self.at >= group.len()) {
            (self.group, self.at) = (self.group + 1, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hyper::drive::Link;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn leaf(seq: u64) -> Leaf {
        Leaf::Link(Link { seq, stat: Stat::default(), xattrs: None, target: "t".into() })
    }

    fn seq(node: &Node) -> u64 {
        match node.leaf() {
            Some(Leaf::Link(link)) => link.seq,
            _ => 0,
        }
    }

    #[test]
    fn a_change_leaves_other_groups_shared() {
        let mut dir = Dir::default();
        for i in 0..100_000 {
            dir.set_leaf(&format!("{i:06}"), leaf(i));
        }
        assert_eq!(dir.groups.len(), 100_000usize.div_ceil(GROUP));
        let mut next = dir.clone();
        next.set_leaf("050000", leaf(1));
        next.replace("070000", None);
        let mut told = Vec::new();
        let mut visited = 0;
        differences(&dir, &next, |name, old, new| {
            visited += 1;
            if old.map(seq) != new.map(seq) {
                told.push(name.to_owned());
            }
        });
        assert_eq!(told, ["050000", "070000"]);
        assert!(visited <= 2 * GROUP);
    }

    proptest! {
        #[test]
        fn a_directory_is_a_sorted_map(
            steps in proptest::collection::vec((0u16..900, any::<bool>()), 0..1500)
        ) {
            let (mut dir, mut model) = (Dir::default(), BTreeMap::new());
            for (i, (name, put)) in steps.iter().enumerate() {
                let name = name.to_string();
                if *put {
                    dir.set_leaf(&name, leaf(i as u64));
                    model.insert(name, i as u64);
                } else {
                    dir.replace(&name, None);
                    model.remove(&name);
                }
            }
            let names: Vec<(&str, u64)> = dir.iter().map(|(name, node)| (name, seq(node))).collect();
            let want: Vec<(&str, u64)> = model.iter().map(|(name, &i)| (&**name, i)).collect();
            prop_assert_eq!(names, want);
            prop_assert_eq!(dir.len(), model.len());
            for (name, i) in &model {
                prop_assert_eq!(dir.get(name).map(seq), Some(*i));
            }
        }
    }
}
