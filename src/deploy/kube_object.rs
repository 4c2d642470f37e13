//! Objects of a cluster of which a part writes some kinds: one type for all of them.

/// Makes `KubeObject` of the kinds that a part writes.
macro_rules! kube_objects {
    ($($kind:ident: $type:ty),+ $(,)?) => {
        /// An object of the cluster.
        #[derive(Debug, Clone, PartialEq, ::serde::Serialize)]
        #[serde(untagged)]
        pub enum KubeObject {
            $(#[doc = concat!("A ", stringify!($kind), ".")] $kind(::std::boxed::Box<$type>),)+
        }

        impl KubeObject {
            /// Its kind.
            #[must_use]
            pub fn kind(&self) -> &'static str {
                match self { $(Self::$kind(_) => stringify!($kind),)+ }
            }

            /// Its name and labels.
            #[must_use]
            pub fn metadata(&self) -> &::k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
                match self { $(Self::$kind(object) => &object.metadata,)+ }
            }

            /// The same to change it.
            #[must_use]
            pub fn metadata_mut(&mut self) -> &mut ::k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
                match self { $(Self::$kind(object) => &mut object.metadata,)+ }
            }
        }

        $(impl From<$type> for KubeObject {
            fn from(object: $type) -> Self {
                Self::$kind(::std::boxed::Box::new(object))
            }
        })+
    };
}

pub(crate) use kube_objects;
