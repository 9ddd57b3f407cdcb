//! A record of leases in memory.

use std::collections::BTreeMap;
use std::sync::Mutex;

use async_trait::async_trait;
use tokio::time::Instant;

use super::locked;
use crate::StoreError;
use crate::lease::{Claim, Claimed, Contender, LeaseStore, Turn, assign};

#[derive(Default)]
struct Record {
    instances: BTreeMap<String, (Vec<String>, Instant)>,
    leases: BTreeMap<String, Held>,
}

struct Held {
    holder: Option<String>,
    epoch: u64,
    until: Instant,
}

/// Leases by the clock of the process.
#[derive(Default)]
pub struct MemoryLeases {
    record: Mutex<Record>,
}

impl MemoryLeases {
    /// What a store knows of an instance whose connection has broken: it is dead, and its leases are free at once.
    pub fn bury(&self, instance: &str) {
        let mut record = locked(&self.record);
        record.instances.remove(instance);
    }
}

impl Record {
    fn claimed(&self) -> Vec<Claimed> {
        let now = Instant::now();
        let held = self.leases.iter().filter(|(_, held)| held.until > now);
        let held = held.filter_map(|(name, held)| Some((name, held.holder.as_ref()?)));
        let alive = held.filter(|(_, holder)| self.instances.contains_key(*holder));
        alive.map(|(name, holder)| Claimed { name: name.clone(), holder: holder.clone() }).collect()
    }
}

#[async_trait]
impl LeaseStore for MemoryLeases {
    async fn turn(&self, claim: &Claim) -> Result<Turn, StoreError> {
        let (mut record, now) = (locked(&self.record), Instant::now());
        let until = now + claim.lasting;
        record.instances.retain(|_, (_, until)| *until > now);
        record.instances.insert(claim.instance.clone(), (claim.wants.clone(), until));
        let alive: Vec<Contender> = record
            .instances
            .iter()
            .map(|(instance, (wants, _))| Contender { instance: instance.clone(), wants: wants.clone() })
            .collect();
        let me = Contender { instance: claim.instance.clone(), wants: claim.wants.clone() };
        let wanted = assign(&me, &alive, &record.claimed());
        for name in wanted.keep {
            if let Some(held) = record.leases.get_mut(&name) {
                held.until = until;
            }
        }
        for name in wanted.take {
            let held = record.leases.entry(name).or_insert(Held { holder: None, epoch: 0, until });
            *held = Held { holder: Some(claim.instance.clone()), epoch: held.epoch + 1, until };
        }
        for name in wanted.give {
            if let Some(held) = record.leases.get_mut(&name) {
                held.holder = None;
            }
        }
        let holders: BTreeMap<String, String> =
            record.claimed().into_iter().map(|claimed| (claimed.name, claimed.holder)).collect();
        let mine = holders.iter().filter(|(_, holder)| **holder == claim.instance);
        let held = mine.filter_map(|(name, _)| Some((name.clone(), record.leases.get(name)?.epoch))).collect();
        Ok(Turn { held, holders })
    }

    async fn leave(&self, instance: &str) -> Result<(), StoreError> {
        let mut record = locked(&self.record);
        record.instances.remove(instance);
        for held in record.leases.values_mut() {
            if held.holder.as_deref() == Some(instance) {
                held.holder = None;
            }
        }
        Ok(())
    }
}
