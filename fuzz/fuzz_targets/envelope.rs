//! An envelope reads back as it was written, whoever wrote it.

#![no_main]

use hookbot_protocol::Envelope;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|json: &[u8]| {
    if let Ok(envelope) = Envelope::from_json(json) {
        let written = envelope.to_json();
        let again = Envelope::from_json(&written).expect("we read what we write");
        assert_eq!(again, envelope);
        assert_eq!(again.to_json(), written);
    }
});
