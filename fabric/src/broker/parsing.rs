//! Tests of `vendor/amq-protocol-types`, as it is linked: whatever RabbitMQ hands out is read, and what was read can be
//! written again.

use lapin::types::{
    AMQPValue, FieldTable,
    generation::{gen_field_table, gen_short_string},
    parsing::{parse_field_table, parse_short_string},
};

/// A short string as it is on the wire.
fn short(bytes: &[u8]) -> Vec<u8> {
    let length = u8::try_from(bytes.len()).unwrap();
    [&[length], bytes].concat()
}

/// A value of variable length as it is on the wire.
fn long(kind: u8, bytes: &[u8]) -> Vec<u8> {
    [&[kind], &length(bytes)[..], bytes].concat()
}

fn length(bytes: &[u8]) -> [u8; 4] {
    u32::try_from(bytes.len()).unwrap().to_be_bytes()
}

fn read_short(bytes: &[u8]) -> String {
    let wire = short(bytes);
    let (rest, text) = parse_short_string(&wire[..]).unwrap();
    assert!(rest.is_empty());
    let written = gen_short_string::<Vec<u8>>(text.as_str())(Vec::new().into()).unwrap();
    let (again, _) = written.into_inner();
    assert_eq!(parse_short_string(&again[..]).unwrap().1, text, "written as it was read");
    text.to_string()
}

fn read_table(entries: &[u8]) -> FieldTable {
    let wire = [&length(entries)[..], entries].concat();
    let (rest, table) = parse_field_table(&wire[..]).unwrap();
    assert!(rest.is_empty());
    let (again, _) = gen_field_table::<Vec<u8>>(&table)(Vec::new().into()).unwrap().into_inner();
    assert_eq!(parse_field_table(&again[..]).unwrap().1, table, "written as it was read");
    table
}

#[test]
fn short_strings_in_utf8_are_read_as_they_are() {
    for text in ["", "plain", "ümläut", &"x".repeat(255), &"é".repeat(127)] {
        assert_eq!(read_short(text.as_bytes()), text);
    }
}

#[test]
fn bytes_that_are_not_utf8_become_replacement_characters() {
    assert_eq!(read_short(b"a\xff\xfeb"), "a\u{fffd}\u{fffd}b");
    assert_eq!(read_short(b"latin \xe9"), "latin \u{fffd}");
    assert_eq!(read_short("cut in a chär".as_bytes().split_last().unwrap().1), "cut in a chä");
    assert_eq!(read_short(b"half of \xc3"), "half of \u{fffd}");
}

#[test]
fn replacements_are_cut_to_what_a_short_string_holds() {
    assert_eq!(read_short(&[0xff; 255]), "\u{fffd}".repeat(85));
    let text = read_short(&[&[b'a'][..], &[0xff; 254]].concat());
    assert_eq!(text, format!("a{}", "\u{fffd}".repeat(84)), "cut at the end of a character");
}

#[test]
fn headers_whose_names_are_not_utf8_are_read() {
    let entries = [short(b"n\xff"), long(b'S', b"v\xff"), short(b"plain"), vec![b't', 1]].concat();
    let table = read_table(&entries);
    assert_eq!(table.inner()["n\u{fffd}"], AMQPValue::LongString(b"v\xff".to_vec().into()));
    assert_eq!(table.inner()["plain"], AMQPValue::Boolean(true));
}

/// Every type of value that RabbitMQ takes in a header, with all bits set where it takes that.
#[test]
fn every_value_that_the_broker_takes_is_read() {
    let sized = [
        (b'b', 1),
        (b'B', 1),
        (b's', 2),
        (b'u', 2),
        (b'I', 4),
        (b'i', 4),
        (b'l', 8),
        (b'L', 8),
        (b'T', 8),
        (b't', 1),
        (b'D', 5),
        (b'V', 0),
    ];
    let mut entries = Vec::new();
    for (kind, size) in sized {
        entries.extend([short(&[kind]), vec![kind], vec![0xff; size]].concat());
    }
    for (kind, bytes) in [(b'f', vec![0; 4]), (b'd', vec![0; 8])] {
        entries.extend([short(&[kind]), vec![kind], bytes].concat());
    }
    for kind in [b'S', b'x'] {
        entries.extend([short(&[kind]), long(kind, &[0xff; 300])].concat());
    }
    assert_eq!(read_table(&entries).inner().len(), 16);
}

/// Levels of arrays, or of tables in tables.
fn nested(kind: u8, levels: usize) -> Vec<u8> {
    let wrap = |inner: Vec<u8>, _| {
        let named = if kind == b'F' { short(b"n") } else { Vec::new() };
        long(kind, &[named, inner].concat())
    };
    (1..levels).fold(long(kind, &[]), wrap)
}

fn depth(value: &AMQPValue) -> usize {
    let inner = match value {
        AMQPValue::FieldArray(items) => items.as_slice().first(),
        AMQPValue::FieldTable(table) => table.inner().values().next(),
        _ => return 0,
    };
    1 + inner.map_or(0, depth)
}

#[test]
fn headers_nested_deeper_than_a_bound_are_read_up_to_it() {
    for kind in [b'A', b'F'] {
        for (levels, read) in [(20, 20), (31, 31), (32, 32), (100, 32)] {
            let entries = [short(b"deep"), nested(kind, levels), short(b"z"), vec![b'V']].concat();
            let table = read_table(&entries);
            assert_eq!(depth(&table.inner()["deep"]), read, "{levels} levels of {}", kind as char);
            assert_eq!(table.inner()["z"], AMQPValue::Void, "what follows is read");
        }
    }
}

#[test]
fn an_entry_that_can_t_be_read_ends_its_table_and_no_more() {
    // No type is called `?`, and a text claims more bytes than its table has.
    for broken in [vec![b'?', 1, 2, 3], [&[b'S'][..], &length(&[0; 200]), b"short"].concat()] {
        let inner = [
            short(b"first"),
            vec![b't', 1],
            short(b"broken"),
            broken.clone(),
            short(b"last"),
            vec![b'V'],
        ];
        let table = read_table(&inner.concat());
        assert_eq!(table.inner().len(), 1, "what came before is kept, what follows is skipped");
        assert_eq!(table.inner()["first"], AMQPValue::Boolean(true));

        let outer =
            [short(b"inner"), long(b'F', &inner.concat()), short(b"after"), vec![b'V']].concat();
        let table = read_table(&outer);
        assert_eq!(table.inner()["after"], AMQPValue::Void, "the table around it is read on");
        let items = long(b'A', &[vec![b'V'], broken].concat());
        let table = read_table(&[short(b"items"), items, short(b"after"), vec![b'V']].concat());
        assert_eq!(table.inner()["items"], AMQPValue::FieldArray(vec![AMQPValue::Void].into()));
        assert_eq!(table.inner()["after"], AMQPValue::Void, "what follows the array is read");
    }
}
