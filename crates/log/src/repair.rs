//! Giving damaged messages up, so that all others can be had again.
//!
//! Whole records are copied, byte by byte, into a new file that takes the place of the damaged
//! one. The log gets another epoch, so that whoever resumes learns that it is not quite the log
//! it knew, and no offset that may have been lost is given away again.

use std::io::{self, IoSlice};

use hookbot_protocol::{Epoch, Offset};

use crate::commit::begin;
use crate::disk::{Disk, UNFINISHED, write_all};
use crate::error::OpenError;
use crate::meta::{self, Meta};
use crate::record::{HEAD, micros};
use crate::scan::{Window, next_head, read_record};
use crate::segment::{HEADER, Header, Place, Space};
use crate::survey::{Examined, Survey};

/// Repairs a log that is damaged, and leaves one alone that is not. Gives what it is now.
pub(crate) fn repair(disk: &dyn Disk, meta: Meta) -> Result<Meta, OpenError> {
    let survey = Survey::new(disk, &meta)?;
    if survey.damage.is_empty() {
        return Ok(meta);
    }
    for damage in &survey.damage {
        tracing::warn!("given up: {damage}");
    }
    let meta = Meta {
        epoch: Epoch(fastrand::u64(..)),
        ..meta
    };
    meta.write(disk).map_err(OpenError::io(meta::NAME))?;

    let last = survey.last();
    let next = last[0].max(last[1]).next();
    for space in Space::ALL {
        let mut number = None;
        for examined in &survey.lanes[space as usize] {
            let place = examined.place;
            for missing in number.unwrap_or(place.number)..place.number {
                let place = Place {
                    space,
                    number: missing,
                };
                let base = examined.header.map_or(next, |header| header.base);
                write_empty(disk, &meta, place, base, [base; 2])?;
            }
            number = Some(place.number + 1);
            if examined.stops.is_some() || examined.follows_loss {
                let name = place.log_name();
                rewrite(disk, &meta, examined, next).map_err(OpenError::io(name))?;
            }
        }
        // Everything there was is closed now. The new end of the lane knows that it need not be
        // complete.
        let number = number.unwrap_or(1);
        write_empty(disk, &meta, Place { space, number }, next, last)?;
    }
    Ok(meta)
}

fn write_empty(
    disk: &dyn Disk,
    meta: &Meta,
    place: Place,
    base: Offset,
    durable: [Offset; 2],
) -> Result<(), OpenError> {
    let header = Header {
        place,
        after_repair: true,
        epoch: meta.epoch,
        base,
        time: micros(std::time::SystemTime::now()),
        durable,
    };
    let begun = begin(disk, &header, place.seed(meta)).map_err(io::Error::from);
    begun.map(|_| ()).map_err(OpenError::io(place.log_name()))
}

/// Copies what is whole into a new file.
fn rewrite(disk: &dyn Disk, meta: &Meta, examined: &Examined, next: Offset) -> io::Result<()> {
    let place = examined.place;
    let seed = place.seed(meta);
    let name = place.log_name();
    let unfinished = format!("{name}{UNFINISHED}");
    let old = disk.open(&name)?;
    let new = disk.create(&unfinished)?;
    let mut window = Window::new(&*old)?;
    let mut header = examined.header;
    let (mut from, mut to) = (HEADER as u64, HEADER as u64);
    let mut last = Offset(0);
    while from + (HEAD as u64) <= window.length {
        match read_record(&mut window, from, seed, last)? {
            Ok((head, bytes)) => {
                // What the first record says will do for a header that is lost.
                header.get_or_insert(Header {
                    place,
                    after_repair: true,
                    epoch: meta.epoch,
                    base: head.stamp.offset,
                    time: head.stamp.time,
                    durable: head.stamp.durable,
                });
                write_all(&*new, &mut [IoSlice::new(bytes)], to)?;
                last = head.stamp.offset;
                from += head.size as u64;
                to += head.size as u64;
            }
            Err(_) => match next_head(&mut window, from + 1, seed)? {
                Some((found, _)) => from = found,
                None => break,
            },
        }
    }
    let header = Header {
        after_repair: true,
        ..header.unwrap_or(Header {
            place,
            after_repair: true,
            epoch: meta.epoch,
            base: next,
            time: 0,
            durable: [next; 2],
        })
    };
    write_all(&*new, &mut [IoSlice::new(&header.encode(seed))], 0)?;
    new.sync()?;
    match disk.remove(&place.index_name()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    disk.rename(&unfinished, &name)?;
    disk.sync()
}
