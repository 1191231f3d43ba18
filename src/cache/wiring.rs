//! Layers of one lane that read another layer's cache, or use another layer's attention map.

use std::fmt;

use serde::{Serialize, Serializer};

/// For each layer, whose keys and values it reads and whose map it uses: at first its own. What others read from
/// holds keys and values itself, and comes before them.
#[derive(Clone, PartialEq, Eq)]
pub struct Wiring {
    kv: Vec<usize>,
    map: Vec<usize>,
}

/// What a layer's cache holds beside the positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holds {
    KeysAndValues,
    /// The map comes from another layer.
    Values,
    /// Keys and values come from another layer.
    Nothing,
}

/// A pair that cannot be wired.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WiringError {
    #[error("layer {layer} would need what layer {from} computes later, or there is no such layer (0 to {last})")]
    NotBefore { layer: usize, from: usize, last: usize },
    #[error("layer {from} has no keys and values of its own for layer {layer} to use")]
    NotOwn { layer: usize, from: usize },
    #[error("layer {layer} is read by layer {reader}, so it must keep keys and values of its own")]
    Read { layer: usize, reader: usize },
}

impl Wiring {
    /// Every layer its own.
    pub fn own(layers: usize) -> Self {
        Self { kv: (0..layers).collect(), map: (0..layers).collect() }
    }

    pub fn layers(&self) -> usize {
        self.kv.len()
    }

    fn check(&self, layer: usize, from: usize) -> Result<(), WiringError> {
        if layer >= self.layers() || from > layer {
            return Err(WiringError::NotBefore { layer, from, last: self.layers().saturating_sub(1) });
        }
        if from != layer && !self.is_own(from) {
            return Err(WiringError::NotOwn { layer, from });
        }
        match (0..self.layers()).find(|&l| l != layer && (self.kv[l] == layer || self.map[l] == layer)) {
            Some(reader) if from != layer => Err(WiringError::Read { layer, reader }),
            _ => Ok(()),
        }
    }

    /// `layer` reads the keys and values of `from` and keeps none.
    pub fn read(&mut self, layer: usize, from: usize) -> Result<(), WiringError> {
        self.check(layer, from)?;
        (self.kv[layer], self.map[layer]) = (from, layer);
        Ok(())
    }

    /// The same, and whoever read `layer` so far reads `from` as well.
    pub fn redirect(&mut self, layer: usize, from: usize) -> Result<(), WiringError> {
        let mut wiring = self.clone();
        let readers: Vec<usize> = (0..self.layers()).filter(|&l| l != layer && self.kv[l] == layer).collect();
        readers.iter().for_each(|&reader| wiring.kv[reader] = reader);
        wiring.read(layer, from)?;
        for reader in readers {
            wiring.read(reader, from)?;
        }
        *self = wiring;
        Ok(())
    }

    /// `layer` weighs its own values with the attention map of `from`; it has neither queries nor keys.
    pub fn use_map(&mut self, layer: usize, from: usize) -> Result<(), WiringError> {
        self.check(layer, from)?;
        (self.kv[layer], self.map[layer]) = (layer, from);
        Ok(())
    }

    /// The layer whose values `layer` weighs.
    pub fn values(&self, layer: usize) -> usize {
        self.kv[layer]
    }

    /// The layer whose queries make `layer`'s map.
    pub fn queries(&self, layer: usize) -> usize {
        self.map[layer]
    }

    /// The layer whose keys make `layer`'s map: its slots are `layer`'s, too.
    pub fn keys(&self, layer: usize) -> usize {
        self.kv[self.map[layer]]
    }

    pub fn is_own(&self, layer: usize) -> bool {
        self.kv[layer] == layer && self.map[layer] == layer
    }

    /// Other layers use the map of `layer`.
    pub fn lends_map(&self, layer: usize) -> bool {
        (layer + 1..self.layers()).any(|l| self.map[l] == layer)
    }

    pub fn holds(&self, layer: usize) -> Holds {
        match (self.kv[layer] == layer, self.map[layer] == layer) {
            (true, true) => Holds::KeysAndValues,
            (true, false) => Holds::Values,
            (false, _) => Holds::Nothing,
        }
    }

    /// Layers that are not their own.
    pub fn readers(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.layers()).filter(|&layer| !self.is_own(layer))
    }
}

/// A list of the layers that are not their own.
impl Serialize for Wiring {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Reader {
            layer: usize,
            keys_of: usize,
            values_of: usize,
            queries_of: usize,
        }
        let reader = |layer: usize| Reader {
            layer,
            keys_of: self.keys(layer),
            values_of: self.values(layer),
            queries_of: self.queries(layer),
        };
        to.collect_seq(self.readers().map(reader))
    }
}

impl fmt::Debug for Wiring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pair =
            |l: usize| if self.kv[l] == l { format!("{l}~{}", self.map[l]) } else { format!("{l}>{}", self.kv[l]) };
        write!(f, "{}", self.readers().map(pair).collect::<Vec<_>>().join("/"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_holds_nothing_and_a_user_of_maps_only_values() {
        let mut wiring = Wiring::own(6);
        wiring.read(3, 1).unwrap();
        wiring.use_map(5, 4).unwrap();
        assert_eq!(
            (wiring.holds(3), wiring.holds(5), wiring.holds(4)),
            (Holds::Nothing, Holds::Values, Holds::KeysAndValues)
        );
        assert_eq!((wiring.keys(3), wiring.values(3), wiring.queries(3)), (1, 1, 3));
        assert_eq!((wiring.keys(5), wiring.values(5), wiring.queries(5)), (4, 5, 4));
        assert!(wiring.lends_map(4) && !wiring.lends_map(1));
        assert_eq!((wiring.readers().collect::<Vec<_>>(), format!("{wiring:?}").as_str()), (vec![3, 5], "3>1/5~4"));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let mut wiring = Wiring::own(4);
        wiring.read(2, 1).unwrap();
        assert_eq!(wiring.read(1, 3), Err(WiringError::NotBefore { layer: 1, from: 3, last: 3 }));
        assert_eq!(wiring.read(4, 0), Err(WiringError::NotBefore { layer: 4, from: 0, last: 3 }));
        assert_eq!(wiring.read(3, 2), Err(WiringError::NotOwn { layer: 3, from: 2 }));
        assert_eq!(wiring.use_map(1, 0), Err(WiringError::Read { layer: 1, reader: 2 }));
        wiring.redirect(1, 0).unwrap();
        assert_eq!(format!("{wiring:?}"), "1>0/2>0");
        wiring.read(1, 1).unwrap();
        assert!(wiring.is_own(1));
    }
}
