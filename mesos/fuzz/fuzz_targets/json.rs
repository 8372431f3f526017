//! JSON: whatever is read can be written in both encodings and read again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mesos::codec::Encoding;
use mesos::pb;

fn check<M>(bytes: &[u8])
where
    M: prost_reflect::ReflectMessage + prost::Message + Default,
{
    if let Ok(message) = Encoding::Json.decode::<M>(bytes) {
        for encoding in [Encoding::Json, Encoding::Protobuf] {
            let written = encoding.encode(&message);
            assert!(encoding.decode::<M>(&written).is_ok());
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    check::<pb::scheduler::Event>(bytes);
    check::<pb::scheduler::Call>(bytes);
    check::<pb::executor::Event>(bytes);
    check::<pb::executor::Call>(bytes);
    check::<pb::master::Call>(bytes);
    check::<pb::MasterInfo>(bytes);
});
