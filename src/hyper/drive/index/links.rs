//! Which names are one file: those whose entries bear one id.
//!
//! An index knows every id that is borne, to see when a second name comes with it; only of ids that several bear it knows
//! the names. A drive without ids pays nothing for that, and one where each name has its own some ten bytes for each.
//!
//! Ids are the writer's word, and other programs copy and replace entries without knowing of them. So names are one file
//! only if they have one content too. The oldest entry says which; what else bears its id counts as without one.

use super::DriveIndex;
use crate::hyper::drive::dir::{Dir, Node};
use crate::hyper::drive::leaf::Leaf;
use crate::path::DrivePath;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Ids in a group: a change copies one.
const GROUP: usize = 256;

/// See the module.
#[derive(Debug, Clone, Default)]
pub(super) struct Links {
    /// Every id that is borne.
    ids: Arc<Ids>,
    /// Those that several names bear.
    shared: Arc<BTreeMap<u64, Arc<Bearers>>>,
    /// Names whose id is another one now, or whose content may be, with the ids before and after; none once they are
    /// settled.
    changed: BTreeMap<DrivePath, (u64, u64)>,
    /// The ids that came while a whole drive is loaded, of which no name is told twice: so many paths would be too much.
    loading: Option<Vec<u64>>,
}

/// Every id, and of those that several bear the links and the others.
#[cfg(test)]
pub(super) type Known = (Vec<u64>, Vec<(u64, Vec<DrivePath>, Vec<DrivePath>)>);

/// The names that bear an id.
#[derive(Debug, Clone, Default, PartialEq)]
struct Bearers {
    links: BTreeSet<DrivePath>,
    /// Those with another content.
    others: BTreeSet<DrivePath>,
}

impl Bearers {
    fn all(&self) -> impl Iterator<Item = &DrivePath> {
        self.links.iter().chain(&self.others)
    }
}

impl Links {
    /// For a drive that is to be loaded. [`DriveIndex::settle_links`] ends that.
    pub fn loading() -> Self {
        Self { loading: Some(Vec::new()), ..Self::default() }
    }

    /// A name had one id, and has the other, 0 for none.
    pub fn change(&mut self, path: &DrivePath, before: u64, after: u64) {
        if let Some(ids) = &mut self.loading {
            ids.extend((after != 0).then_some(after));
            return;
        }
        if before == after && (after == 0 || !self.shared.contains_key(&after)) {
            return;
        }
        self.changed.entry(path.clone()).or_insert((before, after)).1 = after;
    }

    /// What was at `from`, or below, is at `to`.
    pub fn move_to(&mut self, from: &DrivePath, to: &DrivePath) {
        let moves = |bearers: &Bearers| bearers.all().any(|path| path.moved(from, from).is_some());
        if !self.shared.values().any(|bearers| moves(bearers)) {
            return;
        }
        let at = |path: &DrivePath| path.moved(from, to).unwrap_or_else(|| path.clone());
        for bearers in Arc::make_mut(&mut self.shared).values_mut() {
            if moves(bearers) {
                let links = bearers.links.iter().map(at).collect();
                let others = bearers.others.iter().map(at).collect();
                *bearers = Arc::new(Bearers { links, others });
            }
        }
    }

    /// There will be a second name for what is at `path`.
    fn share(&mut self, id: u64, path: &DrivePath) {
        let shared = Arc::make_mut(&mut self.shared);
        shared.entry(id).or_insert_with(|| {
            Arc::new(Bearers { links: BTreeSet::from([path.clone()]), ..Bearers::default() })
        });
    }

    /// Everything, to be compared.
    #[cfg(test)]
    pub fn known(&self) -> Known {
        assert!(self.changed.is_empty(), "settled");
        let shared = self.shared.iter().map(|(id, bearers)| {
            let list = |paths: &BTreeSet<DrivePath>| paths.iter().cloned().collect();
            (*id, list(&bearers.links), list(&bearers.others))
        });
        (self.ids.groups.iter().flat_map(|group| group.iter().copied()).collect(), shared.collect())
    }
}

impl DriveIndex {
    /// The names of the file that bears this id, in order, if it has several.
    pub fn links(&self, id: u64) -> impl Iterator<Item = &DrivePath> {
        let links = self.links.shared.get(&id).map(|bearers| &bearers.links);
        links.filter(|links| links.len() > 1).into_iter().flatten()
    }

    /// How many names the file has that bears this id.
    pub fn link_count(&self, id: u64) -> usize {
        self.links.shared.get(&id).map_or(1, |bearers| bearers.links.len().max(1))
    }

    /// The id of a name, if it is that of its file: 0 for one that another file had before.
    pub fn id_of(&self, path: &DrivePath, leaf: &Leaf) -> u64 {
        let id = leaf.stat().id;
        let is_other = |bearers: &Arc<Bearers>| bearers.others.contains(path);
        if id != 0 && self.links.shared.get(&id).is_some_and(is_other) { 0 } else { id }
    }

    /// Gives what is at `path`, a leaf with an id, a second name in a folder that is there.
    pub fn link(&mut self, path: &DrivePath, second: &DrivePath) {
        let Some(leaf) = self.node(path).and_then(Node::leaf).cloned() else { return };
        debug_assert!(leaf.stat().id != 0 && path != second);
        self.links.share(leaf.stat().id, path);
        self.set(second, leaf);
    }

    /// Finds out what the changes since make of links. Where an id that was borne by one name came with a second, that
    /// means a look at all names; [`Self::link`] spares it.
    pub(super) fn settle_links(&mut self) {
        if let Some(ids) = self.links.loading.take() {
            let second = Arc::make_mut(&mut self.links.ids).fill(ids);
            let second = second.into_iter().map(|id| (id, BTreeSet::new())).collect();
            return self.find_links(second, BTreeSet::new());
        }
        if self.links.changed.is_empty() {
            return;
        }
        let changed = std::mem::take(&mut self.links.changed);
        let (ids, shared) = (&mut self.links.ids, &mut self.links.shared);
        let mut touched = BTreeSet::new();
        let left = changed.iter().filter(|(_, (before, after))| *before != 0 && before != after);
        for (path, (id, _)) in left {
            if !shared.contains_key(id) {
                Arc::make_mut(ids).remove(*id);
            } else if let Some(bearers) = Arc::make_mut(shared).get_mut(id) {
                let bearers = Arc::make_mut(bearers);
                let _ = bearers.links.remove(path) || bearers.others.remove(path);
                touched.insert(*id);
            }
        }
        let mut second = BTreeMap::new();
        for (path, (before, id)) in changed.into_iter().filter(|(_, (_, id))| *id != 0) {
            if shared.contains_key(&id) {
                touched.insert(id);
                if before != id
                    && let Some(bearers) = Arc::make_mut(shared).get_mut(&id)
                {
                    Arc::make_mut(bearers).others.insert(path);
                }
            } else if before != id && !Arc::make_mut(ids).insert(id) {
                second.insert(id, BTreeSet::new());
            }
        }
        self.find_links(second, touched);
    }

    /// Finds the names of ids that several bear from now on, and looks at those again whose names, or what they are, are
    /// others.
    fn find_links(
        &mut self,
        mut second: BTreeMap<u64, BTreeSet<DrivePath>>,
        mut touched: BTreeSet<u64>,
    ) {
        if !second.is_empty() {
            self.find_bearers(&mut second);
            touched.extend(second.keys());
            let shared = Arc::make_mut(&mut self.links.shared);
            let found = |others| Arc::new(Bearers { others, ..Bearers::default() });
            shared.extend(second.into_iter().map(|(id, paths)| (id, found(paths))));
        }
        touched.into_iter().for_each(|id| self.sort_bearers(id));
    }

    /// Looks for all names that bear one of these ids.
    fn find_bearers(&self, wanted: &mut BTreeMap<u64, BTreeSet<DrivePath>>) {
        let mut todo: Vec<(DrivePath, &Arc<Dir>)> = vec![(DrivePath::root(), &self.root)];
        while let Some((at, dir)) = todo.pop() {
            for (name, node) in dir.iter() {
                let id = node.leaf().map_or(0, |leaf| leaf.stat().id);
                if let (Some(paths), Ok(path)) = (wanted.get_mut(&id), at.join(name)) {
                    paths.insert(path);
                }
                if let (Some(dir), Ok(path)) = (node.dir(), at.join(name)) {
                    todo.push((path, dir));
                }
            }
        }
    }

    /// Tells links from others that bear the id.
    fn sort_bearers(&mut self, id: u64) {
        let Some(bearers) = self.links.shared.get(&id) else { return };
        let leaf = |path: &DrivePath| self.node(path).and_then(Node::leaf);
        let oldest = bearers.all().min_by_key(|path| (leaf(path).map(Leaf::seq), *path));
        let one = oldest.and_then(leaf);
        let (links, others) = bearers.all().cloned().partition(|path| {
            let same = leaf(path).zip(one).is_some_and(|(leaf, one)| leaf.is_one_with(one));
            same || Some(path) == oldest
        });
        let sorted = Bearers { links, others };
        let count = sorted.all().count();
        let shared = Arc::make_mut(&mut self.links.shared);
        if count > 1 {
            shared.insert(id, Arc::new(sorted));
            return;
        }
        shared.remove(&id);
        if count == 0 {
            Arc::make_mut(&mut self.links.ids).remove(id);
        }
    }
}

/// A set of ids, in order, in groups that versions share.
#[derive(Debug, Clone, Default)]
struct Ids {
    groups: Vec<Arc<Vec<u64>>>,
}

impl Ids {
    /// The group that the id is in, or belongs into.
    fn group(&self, id: u64) -> usize {
        let after = self.groups.partition_point(|group| group.first().is_some_and(|of| *of <= id));
        after.saturating_sub(1)
    }

    /// Takes these, where none were before, and returns those that are there more than once.
    fn fill(&mut self, mut ids: Vec<u64>) -> BTreeSet<u64> {
        ids.sort_unstable();
        let again = ids.windows(2).filter(|two| two[0] == two[1]).map(|two| two[0]).collect();
        ids.dedup();
        self.groups = ids.chunks(GROUP).map(|group| Arc::new(group.to_vec())).collect();
        again
    }

    /// Whether it is new.
    fn insert(&mut self, id: u64) -> bool {
        if self.groups.is_empty() {
            self.groups.push(Arc::default());
        }
        let at = self.group(id);
        let Err(place) = self.groups[at].binary_search(&id) else { return false };
        let group = Arc::make_mut(&mut self.groups[at]);
        group.insert(place, id);
        if group.len() > GROUP {
            let upper = group.split_off(GROUP / 2);
            group.shrink_to_fit();
            self.groups.insert(at + 1, Arc::new(upper));
        }
        true
    }

    fn remove(&mut self, id: u64) {
        let at = self.group(id);
        let Some(group) = self.groups.get_mut(at) else { return };
        let Ok(place) = group.binary_search(&id) else { return };
        if group.len() == 1 {
            self.groups.remove(at);
        } else {
            Arc::make_mut(group).remove(place);
        }
    }
}

#[cfg(test)]
mod tests;
