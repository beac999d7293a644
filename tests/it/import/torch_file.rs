//! A file as `torch.save` writes a state dict: a zip archive of stored entries with a pickle and the
//! storages.

use std::collections::BTreeMap;

/// Names, shapes and values of tensors.
type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// A file with these tensors in f32.
pub fn write(tensors: &Tensors) -> Vec<u8> {
    archive(&entries(tensors, pickle(tensors)))
}

/// The entries of such a file, with another pickle.
pub fn entries(tensors: &Tensors, pickle: Vec<u8>) -> Vec<(String, Vec<u8>)> {
    let mut entries =
        vec![("archive/data.pkl".to_string(), pickle), ("archive/version".into(), b"3\n".to_vec())];
    for (key, (_, values)) in tensors.values().enumerate() {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        entries.push((format!("archive/data/{key}"), bytes));
    }
    entries
}

/// What names the tensors and says where in which storage they lie.
pub fn pickle(tensors: &Tensors) -> Vec<u8> {
    let text = |text: &str| {
        let mut op = vec![b'X'];
        op.extend((text.len() as u32).to_le_bytes());
        op.extend(text.as_bytes());
        op
    };
    let int = |number: usize| {
        let mut op = vec![b'J'];
        op.extend((number as u32).to_le_bytes());
        op
    };
    let tuple = |numbers: &[usize]| {
        let mut op = vec![b'('];
        numbers.iter().for_each(|&number| op.extend(int(number)));
        op.push(b't');
        op
    };
    let dict = b"ccollections\nOrderedDict\n)R";
    let mut pickle = b"\x80\x02".to_vec();
    pickle.extend(dict);
    pickle.push(b'(');
    for (key, (name, (shape, values))) in tensors.iter().enumerate() {
        pickle.extend(text(name));
        pickle.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        pickle.extend(text("storage"));
        pickle.extend(b"ctorch\nFloatStorage\n");
        pickle.extend(text(&key.to_string()));
        pickle.extend(text("cpu"));
        pickle.extend(int(values.len()));
        pickle.extend(b"tQK\x00");
        pickle.extend(tuple(shape));
        let strides: Vec<_> =
            (0..shape.len()).map(|axis| shape[axis + 1..].iter().product()).collect();
        pickle.extend(tuple(&strides));
        pickle.push(0x89);
        pickle.extend(dict);
        pickle.extend(b"tR");
    }
    pickle.extend(b"u.");
    pickle
}

/// A zip archive whose entries are stored as they are.
pub fn archive(entries: &[(String, Vec<u8>)]) -> Vec<u8> {
    let (mut file, mut directory) = (Vec::new(), Vec::new());
    for (name, bytes) in entries {
        let start = file.len() as u32;
        let mut header = Vec::new();
        header.extend([20u16, 0, 0, 0, 0].iter().flat_map(|field| field.to_le_bytes()));
        header.extend(crc32(bytes).to_le_bytes());
        header.extend([bytes.len() as u32; 2].iter().flat_map(|field| field.to_le_bytes()));
        header.extend([name.len() as u16, 0].iter().flat_map(|field| field.to_le_bytes()));
        file.extend(b"PK\x03\x04");
        file.extend(&header);
        file.extend(name.as_bytes());
        file.extend(bytes);
        directory.extend(b"PK\x01\x02\x14\x00");
        directory.extend(&header);
        directory.extend([0; 10]);
        directory.extend(start.to_le_bytes());
        directory.extend(name.as_bytes());
    }
    let (count, start) = (entries.len() as u16, file.len() as u32);
    file.extend(&directory);
    file.extend(b"PK\x05\x06\0\0\0\0");
    file.extend([count; 2].iter().flat_map(|field| field.to_le_bytes()));
    file.extend((directory.len() as u32).to_le_bytes());
    file.extend(start.to_le_bytes());
    file.extend([0; 2]);
    file
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 * (crc & 1)))
    })
}
