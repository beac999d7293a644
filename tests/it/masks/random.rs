//! Random expressions on random grids: the lowered mask, the questions and the reasons against a
//! predicate that knows nothing of positions ranges, spans or De Morgan.

use burn::tensor::{Bool, Int, Tensor, TensorData};
use burn_decoder::mask::{Grid, LoweredMask, Mask};
use proptest::collection::vec;
use proptest::prelude::*;

use super::catalogue::LEAVES;
use super::host;

/// An expression, as the tests see it.
#[derive(Clone, Debug)]
enum Expression {
    /// A leaf of the catalogue, with its arguments.
    ByPosition(usize, [usize; 2]),
    Lengths(Vec<usize>),
    PadCounts(Vec<usize>),
    Documents(Vec<Vec<usize>>),
    DocumentIds(Vec<Vec<i64>>),
    Tokens(Vec<Vec<i64>>, i64),
    VisibleKeys(Vec<Vec<bool>>),
    HiddenCells([usize; 4], Vec<bool>),
    LeftPadded(Box<Expression>, Vec<usize>),
    And(Box<Expression>, Box<Expression>),
    Or(Box<Expression>, Box<Expression>),
    Not(Box<Expression>),
}

const HEADS: usize = 2;

/// The sizes of a grid, as the tests see it.
#[derive(Clone, Debug)]
struct Sizes {
    batch: usize,
    queries: usize,
    query_start: i64,
    key_positions: Vec<i64>,
    rolling: bool,
}

impl Sizes {
    fn grid(&self) -> Grid {
        let Self { batch, queries, query_start, ref key_positions, rolling } = *self;
        if rolling {
            let positions = key_positions.clone();
            Grid::with_key_positions(batch, queries, query_start, positions).unwrap()
        } else {
            Grid::with_offset(batch, queries, key_positions.len(), query_start)
        }
    }

    fn cells(&self) -> Vec<[usize; 4]> {
        let mut cells = Vec::new();
        for b in 0..self.batch {
            for h in 0..HEADS {
                for q in 0..self.queries {
                    cells.extend((0..self.key_positions.len()).map(|k| [b, h, q, k]));
                }
            }
        }
        cells
    }
}

impl Expression {
    /// The predicate.
    fn shows(&self, sizes: &Sizes, cell @ [b, h, q, k]: [usize; 4]) -> bool {
        let (qp, kp) = (sizes.query_start + q as i64, sizes.key_positions[k]);
        match self {
            Self::ByPosition(leaf, arguments) => {
                (LEAVES[*leaf].shows)(arguments.map(|argument| argument as i64), qp, kp)
            }
            Self::Lengths(lengths) => kp < lengths[b] as i64,
            Self::PadCounts(counts) => kp >= counts[b] as i64,
            Self::Documents(lengths) => {
                let document = |position: i64| {
                    let ends = lengths[b].iter().scan(0, |end, length| {
                        *end += *length as i64;
                        Some(*end)
                    });
                    ends.filter(|&end| end <= position).count()
                };
                document(qp) == document(kp)
            }
            Self::DocumentIds(ids) => ids[b][qp as usize] == ids[b][kp as usize],
            Self::Tokens(tokens, pad_id) => tokens[b][k] != *pad_id,
            Self::VisibleKeys(visible) => visible[b % visible.len()][k],
            Self::HiddenCells([batch, heads, queries, keys], hidden) => {
                let index =
                    ((b % batch * heads + h % heads) * queries + q % queries) * keys + k % keys;
                !hidden[index]
            }
            Self::LeftPadded(a, counts) => {
                // The same question, asked of the row without its padding.
                let pads = counts[b] as i64;
                let key_positions = sizes.key_positions.iter().map(|kp| kp - pads).collect();
                let query_start = sizes.query_start - pads;
                let alone = Sizes { query_start, key_positions, ..sizes.clone() };
                kp >= pads && a.shows(&alone, cell)
            }
            Self::And(a, c) => a.shows(sizes, cell) && c.shows(sizes, cell),
            Self::Or(a, c) => a.shows(sizes, cell) || c.shows(sizes, cell),
            Self::Not(a) => !a.shows(sizes, cell),
        }
    }

    /// The mask.
    fn mask(&self) -> Mask {
        let device = host();
        match self {
            Self::ByPosition(leaf, arguments) => (LEAVES[*leaf].mask)(*arguments),
            Self::Lengths(lengths) => Mask::lengths(lengths.iter().copied()),
            Self::PadCounts(counts) => Mask::pad_counts(counts.iter().copied()),
            Self::Documents(lengths) => Mask::document_lengths(lengths.clone()),
            Self::DocumentIds(ids) => {
                Mask::document_ids(&Tensor::<2, Int>::from_data(rows(ids), &device))
            }
            Self::Tokens(tokens, pad_id) => {
                Mask::padding(&Tensor::<2, Int>::from_data(rows(tokens), &device), *pad_id)
            }
            Self::VisibleKeys(visible) => {
                Mask::from_visible_keys(&Tensor::<2, Bool>::from_data(rows(visible), &device))
            }
            Self::HiddenCells(shape, hidden) => {
                let data = TensorData::new(hidden.clone(), *shape);
                Mask::from_hidden(&Tensor::<4, Bool>::from_data(data, &device)).unwrap()
            }
            Self::LeftPadded(a, counts) => a.mask().left_padded(counts.iter().copied()),
            Self::And(a, b) => a.mask() & b.mask(),
            Self::Or(a, b) => a.mask() | b.mask(),
            Self::Not(a) => !a.mask(),
        }
    }
}

fn rows<T: burn::tensor::Element>(rows: &[Vec<T>]) -> TensorData {
    TensorData::new(rows.concat(), [rows.len(), rows.first().map_or(0, Vec::len)])
}

fn sizes() -> impl Strategy<Value = Sizes> {
    let listed = proptest::collection::btree_set(0..12_i64, 1..7)
        .prop_map(|positions| (positions.into_iter().collect::<Vec<_>>(), true));
    let from_zero = (1..7_i64).prop_map(|keys| ((0..keys).collect(), false));
    (1..4_usize, 1..7_usize, -3..8_i64, prop_oneof![from_zero, listed]).prop_map(
        |(batch, queries, query_start, (key_positions, rolling))| Sizes {
            batch,
            queries,
            query_start,
            key_positions,
            rolling,
        },
    )
}

fn leaf(sizes: &Sizes) -> BoxedStrategy<Expression> {
    use Expression::*;
    let &Sizes { batch, queries, query_start, ref key_positions, .. } = sizes;
    let keys = key_positions.len();
    let end = key_positions.last().unwrap() + 1;
    let by_position = || {
        (0..LEAVES.len()).prop_flat_map(|leaf| {
            let [first, second] = LEAVES[leaf].arguments.clone();
            (first, second).prop_map(move |(first, second)| ByPosition(leaf, [first, second]))
        })
    };
    let counts = || vec(0..=end as usize, batch);
    let bands = prop_oneof![
        7 => by_position(),
        1 => counts().prop_map(Lengths),
        1 => counts().prop_map(PadCounts),
        2 => (by_position(), by_position(), counts())
            .prop_map(|(a, b, counts)| LeftPadded(Or(a.into(), b.into()).into(), counts)),
    ];
    let shape = [batch, HEADS, queries, keys];
    let flags = prop_oneof![
        vec(vec(0..3_i64, keys), batch).prop_map(|tokens| Tokens(tokens, 0)),
        prop_oneof![Just(1), Just(batch)]
            .prop_flat_map(move |batch| vec(vec(any::<bool>(), keys), batch))
            .prop_map(VisibleKeys),
        any::<[bool; 4]>().prop_flat_map(move |full| {
            let shape: [usize; 4] =
                std::array::from_fn(|axis| if full[axis] { shape[axis] } else { 1 });
            vec(any::<bool>(), shape.iter().product::<usize>())
                .prop_map(move |hidden| HiddenCells(shape, hidden))
        }),
    ];
    if query_start < 0 {
        return prop_oneof![3 => bands, 1 => flags].boxed();
    }
    // Documents that reach as far as the grid does, and sometimes further.
    let reach = end.max(query_start + queries as i64) as usize;
    let documents = prop_oneof![
        vec(vec(0..5_usize, 1..4), batch).prop_map(move |mut rows| {
            rows.iter_mut().for_each(|row| row.push(reach));
            Documents(rows)
        }),
        vec(vec(0..3_i64, reach), batch).prop_map(DocumentIds),
    ];
    prop_oneof![3 => bands, 1 => flags, 1 => documents].boxed()
}

fn expression(sizes: &Sizes) -> impl Strategy<Value = Expression> + use<> {
    use Expression::*;
    leaf(sizes).prop_recursive(4, 12, 2, |inner| {
        let two = || (inner.clone(), inner.clone());
        prop_oneof![
            3 => two().prop_map(|(a, b)| And(a.into(), b.into())),
            2 => two().prop_map(|(a, b)| Or(a.into(), b.into())),
            1 => inner.clone().prop_map(|a| Not(a.into())),
        ]
    })
}

fn on_a_grid() -> impl Strategy<Value = (Sizes, Expression)> {
    sizes().prop_flat_map(|sizes| expression(&sizes).prop_map(move |e| (sizes.clone(), e)))
}

/// Masks with their grids and number of heads, for who reads what they are lowered to.
pub fn random_masks() -> impl Strategy<Value = (Mask, Grid, usize)> {
    on_a_grid().prop_map(|(sizes, expression)| (expression.mask(), sizes.grid(), HEADS))
}

fn two_on_a_grid() -> impl Strategy<Value = (Sizes, Expression, Expression)> {
    sizes().prop_flat_map(|sizes| {
        (expression(&sizes), expression(&sizes)).prop_map(move |(a, b)| (sizes.clone(), a, b))
    })
}

/// Every cell of the dense tensor, broadcast.
fn dense(lowered: &LoweredMask, sizes: &Sizes) -> Vec<bool> {
    let shape = [sizes.batch, HEADS, sizes.queries, sizes.key_positions.len()];
    lowered.hidden_tensor(&host()).expand(shape).into_data().iter::<bool>().collect()
}

/// Spans are in order and apart; and what they alone could say is not said by cells.
fn check_parts(
    lowered: &LoweredMask,
    predicate: &[bool],
    sizes: &Sizes,
) -> Result<(), TestCaseError> {
    for spans in lowered.spans().into_iter().flatten() {
        let (first, second) = (spans.first(), spans.second());
        prop_assert!(second.is_empty() || !first.is_empty() && first.end < second.start);
        prop_assert!(second.end as usize <= sizes.key_positions.len());
    }
    let rows = predicate.chunks(sizes.key_positions.len());
    let stretches = |row: &[bool]| row.chunk_by(|a, b| a == b).filter(|run| run[0]).count();
    if lowered.hidden_keys().is_none()
        && let Some(cells) = lowered.hidden_cells()
    {
        let more_than_two = rows.map(stretches).any(|stretches| stretches > 2);
        prop_assert!(cells.shape[1] > 1 || more_than_two, "{:?}", cells);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Lowered = dense = rule = predicate, and the questions agree.
    #[test]
    fn lowered_is_dense_is_the_predicate((sizes, expression) in on_a_grid()) {
        let (mask, grid) = (expression.mask(), sizes.grid());
        let lowered = mask.lower(&grid).unwrap();
        let cells = sizes.cells();
        let predicate: Vec<bool> = cells.iter().map(|&cell| expression.shows(&sizes, cell)).collect();

        let dense = dense(&lowered, &sizes);
        for (index, &cell @ [b, h, q, k]) in cells.iter().enumerate() {
            let visible = predicate[index];
            prop_assert_eq!(lowered.is_visible(b, h, q, k), visible, "lowered, {:?}", cell);
            prop_assert_eq!(!dense[index], visible, "dense, {:?}", cell);
            // The rule tells heads apart only where a tensor does.
            prop_assert_eq!(mask.is_visible(&grid, b, h, q, k).unwrap(), visible, "rule, {:?}", cell);
            let reason = mask.why_hidden(&grid, b, h, q, k).unwrap();
            prop_assert_eq!(reason.is_none(), visible, "why, {:?}", cell);
            for part in reason.into_iter().flat_map(|reason| reason.parts) {
                prop_assert!(!part.mask.is_visible(&grid, b, h, q, k).unwrap(), "{}", part);
            }
        }

        let causal = cells.iter().zip(&predicate).all(|(&[_, _, q, k], &visible)| {
            !visible || sizes.key_positions[k] <= sizes.query_start + q as i64
        });
        prop_assert_eq!(lowered.is_causal(), causal);

        let visible = predicate.iter().filter(|&&visible| visible).count();
        let density = visible as f64 / predicate.len() as f64;
        prop_assert!((lowered.density() - density).abs() < 1e-12);

        let dead = lowered.dead_rows();
        for (row, visible) in predicate.chunks(sizes.key_positions.len()).enumerate() {
            let [b, h, q, _] = cells[row * sizes.key_positions.len()];
            let named = dead.iter().any(|dead| {
                dead.batch == b && dead.head.is_none_or(|head| head == h) && dead.query == q
            });
            prop_assert_eq!(named, !visible.contains(&true), "row {} {} {}", b, h, q);
        }

        check_parts(&lowered, &predicate, &sizes)?;

        let json = serde_json::to_string(&mask).unwrap();
        prop_assert_eq!(serde_json::from_str::<Mask>(&json).unwrap(), mask);
    }

    /// A15: the laws of the algebra.
    #[test]
    fn the_algebra_holds((sizes, a, b) in two_on_a_grid()) {
        let (a, b, grid) = (a.mask(), b.mask(), sizes.grid());
        let equal = |left: &Mask, right: &Mask| left.equals(right, &grid).unwrap();
        let (all, none) = (Mask::all_visible(), !Mask::all_visible());

        prop_assert!(equal(&!!&a, &a));
        prop_assert!(equal(&!(&a & &b), &(!&a | !&b)));
        prop_assert!(equal(&!(&a | &b), &(!&a & !&b)));
        prop_assert!(equal(&(&a & &b), &(&b & &a)));
        prop_assert!(equal(&(&a | &b), &(&b | &a)));
        prop_assert!(equal(&(&a & &all), &a) && equal(&(&a | &none), &a));
        prop_assert!(equal(&(&a & &none), &none) && equal(&(&a | &all), &all));
        prop_assert!(equal(&(&a & !&a), &none) && equal(&(&a | !&a), &all));

        prop_assert!((&a & &b).is_subset_of(&a, &grid).unwrap());
        prop_assert!(a.is_subset_of(&(&a | &b), &grid).unwrap());
        let subset = a.is_subset_of(&b, &grid).unwrap();
        prop_assert_eq!(subset, equal(&(&a & &b), &a));
        prop_assert_eq!(equal(&a, &b), subset && b.is_subset_of(&a, &grid).unwrap());
    }
}
