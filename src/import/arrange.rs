//! Values from the order and type of a checkpoint into those of a parameter, and back.

use burn::tensor::{DType, Element, TensorData, bf16, f16};

use super::form::Form;

/// Runs `$body` with `$T` as the Rust type of a float dtype.
macro_rules! with_float {
    ($dtype:expr, $T:ident => $body:expr) => {
        match $dtype {
            DType::F64 => {
                type $T = f64;
                $body
            }
            DType::F16 => {
                type $T = f16;
                $body
            }
            DType::BF16 => {
                type $T = bf16;
                $body
            }
            _ => {
                type $T = f32;
                $body
            }
        }
    };
}

/// Whether values of this type can be parameters here.
pub fn is_weight(dtype: DType) -> bool {
    matches!(dtype, DType::F64 | DType::F32 | DType::F16 | DType::BF16)
}

/// Their tensor as the parameter of `shape` that it holds in `form`, in `dtype`.
///
/// Values that stay as they are are not copied.
pub fn to_ours(theirs: TensorData, form: Form, shape: &[usize], dtype: DType) -> TensorData {
    if form.keeps_order() {
        let (bytes, _, stored) = theirs.into_parts();
        return TensorData::from_bytes(bytes, shape.to_vec(), stored).convert_dtype(dtype);
    }
    with_float!(theirs.dtype(), Stored => with_float!(dtype, Wanted => {
        let values = theirs.as_slice::<Stored>().expect("the dtype was asked");
        let mut ours = vec![Wanted::default(); shape.iter().product()];
        form.for_each(shape, |here, there| ours[here] = convert(values[there]));
        TensorData::new(ours, shape.to_vec())
    }))
}

/// Their tensor of `shape` in `dtype`, filled by the parameters that it holds.
pub fn to_theirs(parts: Vec<(TensorData, Form)>, shape: &[usize], dtype: DType) -> TensorData {
    if let [(_, form)] = parts.as_slice()
        && form.keeps_order()
    {
        let (data, _) = parts.into_iter().next().expect("one part");
        let (bytes, _, stored) = data.into_parts();
        return TensorData::from_bytes(bytes, shape.to_vec(), stored).convert_dtype(dtype);
    }
    with_float!(dtype, Wanted => {
        let mut theirs = vec![Wanted::default(); shape.iter().product()];
        for (data, form) in parts {
            with_float!(data.dtype(), Stored => {
                let values = data.as_slice::<Stored>().expect("the dtype was asked");
                form.for_each(data.shape(), |here, there| theirs[there] = convert(values[here]));
            });
        }
        TensorData::new(theirs, shape.to_vec())
    })
}

/// Exact where the types are the same, or the wanted one is wider.
fn convert<Stored: Element, Wanted: Element>(value: Stored) -> Wanted {
    value.elem()
}
