//! Which core holds a drive's file contents.
//!
//! Source: hyperdrive/index.js (_openBlobsFromHeader, _open, generateContentManifest)

use super::DriveError;
use crate::hyper::bee::Header;
use crate::hyper::core::manifest::Manifest;
use crate::key::CoreKey;

/// The core of the contents, in one of the three ways a drive can name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BlobsCore {
    /// The header says it: older drives.
    Known(CoreKey),
    /// It follows from the manifest of the drive's core. The same key pair signs both.
    Derived(CoreKey, Manifest),
    /// Nothing says it. Whoever writes the drive opens a core of this name in the drive's namespace and
    /// puts its key into the header; a reader has to wait for that.
    Named(String),
}

impl BlobsCore {
    /// `manifest` is that of the drive's core, `header` block 0. `None` if both are still unknown.
    pub fn of(
        drive: &CoreKey,
        manifest: Option<&Manifest>,
        header: Option<&Header>,
    ) -> Result<Option<Self>, DriveError> {
        let metadata = header.and_then(|header| header.metadata.as_ref());
        if let Some(feed) = metadata.and_then(|metadata| metadata.content_feed.as_deref()) {
            let key = feed.first_chunk::<32>().ok_or(DriveError::ContentKey)?;
            return Ok(Some(Self::Known(CoreKey(*key))));
        }
        let Some(manifest) = manifest else { return Ok(None) };
        let derived = match manifest.is_compat(drive) {
            true => None,
            false => manifest.content(drive),
        };
        Ok(Some(match derived {
            Some(content) => Self::Derived(content.key(), content),
            None => Self::Named(format!("{drive}/blobs")),
        }))
    }

    /// The key, unless only the writer can tell it.
    pub fn key(&self) -> Option<CoreKey> {
        match self {
            Self::Known(key) | Self::Derived(key, _) => Some(*key),
            Self::Named(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Reader;
    use crate::hyper::bee::vectors;
    use crate::key::{hex, unhex};
    use serde_json::Value;

    fn key(value: &Value) -> CoreKey {
        CoreKey(bytes(value).try_into().unwrap())
    }

    fn bytes(value: &Value) -> Vec<u8> {
        unhex(value.as_str().unwrap()).unwrap()
    }

    fn of(core: &Value) -> BlobsCore {
        let manifest = Manifest::decode(&mut Reader::new(&bytes(&core["manifest"]))).unwrap();
        let header = core["blocks"].get(0).map(|block| Header::decode(&bytes(block)).unwrap());
        BlobsCore::of(&key(&core["key"]), Some(&manifest), header.as_ref()).unwrap().unwrap()
    }

    #[test]
    fn it_follows_from_the_manifest() {
        for name in ["drivePlain", "driveEncrypted"] {
            let drive = &vectors()[name];
            let mut db = drive["db"].clone();
            if let Some(plain) = db.get("plain").cloned() {
                db["blocks"] = plain;
            }
            let core = of(&db);
            assert!(matches!(core, BlobsCore::Derived(..)), "{name}");
            assert_eq!(core.key(), Some(key(&drive["blobs"]["key"])), "{name}");
        }
        let multisig = &vectors()["keys"]["multisig"];
        let BlobsCore::Derived(derived, content) = of(multisig) else { panic!("not derived") };
        assert_eq!(derived, key(&multisig["contentKey"]));
        assert_eq!(hex(&content.encode()), multisig["contentManifest"].as_str().unwrap());
    }

    #[test]
    fn older_drives_say_it_in_the_header() {
        for name in ["manifestV0", "compat"] {
            let drive = &vectors()["driveLegacy"][name];
            assert_eq!(of(&drive["db"]), BlobsCore::Known(key(&drive["blobs"]["key"])));
            let mut fresh = drive["db"].clone();
            fresh["blocks"] = serde_json::json!([]);
            let name = drive["blobsName"].as_str().unwrap();
            assert_eq!(of(&fresh), BlobsCore::Named(name.into()));
        }
    }

    #[test]
    fn without_manifest_and_header_nothing_is_known() {
        let drive = CoreKey([1; 32]);
        assert_eq!(BlobsCore::of(&drive, None, None).unwrap(), None);
        let header = Header::new(Some(crate::hyper::bee::Metadata {
            content_feed: Some(vec![1; 31]),
            user_data: None,
        }));
        assert!(BlobsCore::of(&drive, None, Some(&header)).is_err());
    }
}
