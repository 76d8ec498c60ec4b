//! The tree of a filter, as written: names aren't looked up and nothing has a type yet.
//!
//! Every node knows the stretch of text it was parsed from. As macros bring nodes of other texts into a tree, a
//! stretch names its text too.

/// Which text a node was parsed from; the loader numbers them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct TextId(pub u32);

/// A stretch of a filter's text, in bytes.
#[derive(Debug, Clone, Copy, Default)]
pub struct At {
    /// The text.
    pub text: TextId,
    /// First byte.
    pub start: u32,
    /// Behind the last byte.
    pub end: u32,
}

/// Trees are compared by meaning: where they were written makes no difference.
impl PartialEq for At {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for At {}

/// A filter or a part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expr {
    /// All of at least two.
    And(Vec<Self>, At),
    /// Any of at least two.
    Or(Vec<Self>, At),
    /// The opposite.
    Not(Box<Self>, At),
    /// A reference to a macro.
    Macro(Box<str>, At),
    /// A comparison.
    Check(Box<Check>),
}

/// One comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What is compared.
    pub left: Operand,
    /// With what, and how.
    pub test: Test,
    /// The whole comparison.
    pub at: At,
}

/// How and with what a value is compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Test {
    /// `exists`
    Exists,
    /// A binary operator.
    Compare {
        /// The operator.
        op: Op,
        /// Where it is written.
        op_at: At,
        /// `oneof`, `anyof` or `allof` behind it.
        modifier: Option<Modifier>,
        /// The right-hand side.
        right: Right,
    },
}

/// The right-hand side of a comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Right {
    /// One constant.
    Value(Literal),
    /// `(a, b, …)`
    List(Vec<Literal>, At),
    /// A field in `val()`, or a transformer.
    Operand(Operand),
}

/// A constant as written, with its quotes and escapes resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Literal {
    /// Its bytes: `\xff` makes any byte possible.
    pub bytes: Box<[u8]>,
    /// Where.
    pub at: At,
}

/// A value that is computed from the event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operand {
    /// A field.
    Field(FieldRef),
    /// A transformer with its arguments.
    Call(Call),
    /// A constant argument of a transformer.
    Literal(Literal),
    /// A list argument of a transformer.
    List(Vec<Self>, At),
}

/// A field as written: `proc.aname[2]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldRef {
    /// The dotted name.
    pub name: Box<str>,
    /// What stands in brackets.
    pub arg: Option<Box<[u8]>>,
    /// Where, brackets included.
    pub at: At,
}

/// A transformer and what it is applied to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Which.
    pub transformer: Transformer,
    /// Its arguments.
    pub args: Vec<Operand>,
    /// What stands in brackets behind it.
    pub selector: Option<Box<[u8]>>,
    /// Where.
    pub at: At,
}

macro_rules! words {
    ($(#[doc = $doc:literal])* $name:ident { $($(#[doc = $row:literal])+ $variant:ident = $word:literal,)+ }) => {
        $(#[doc = $doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[doc = $row])+ $variant,)+ }

        impl $name {
            /// All of them, in an order in which no word stands behind one of its own prefixes.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// How it is written.
            pub fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }
    };
}

words! {
    /// A binary operator.
    Op {
        /// Less or equal.
        Le = "<=",
        /// Less.
        Lt = "<",
        /// Greater or equal.
        Ge = ">=",
        /// Greater.
        Gt = ">",
        /// Equal; `==` means the same.
        EqEq = "==",
        /// Equal.
        Eq = "=",
        /// Different.
        Ne = "!=",
        /// Shell pattern over the whole value.
        Glob = "glob",
        /// The same, ignoring ASCII case.
        IGlob = "iglob",
        /// Contains the constant.
        Contains = "contains",
        /// The same, ignoring ASCII case.
        IContains = "icontains",
        /// Contains the bytes given in hexadecimal.
        BContains = "bcontains",
        /// Begins with the constant.
        StartsWith = "startswith",
        /// Begins with the bytes given in hexadecimal.
        BStartsWith = "bstartswith",
        /// Ends with the constant.
        EndsWith = "endswith",
        /// Regular expression over the whole value.
        Regex = "regex",
        /// Has a value in common with the list.
        Intersects = "intersects",
        /// Is, or every element is, in the list.
        In = "in",
        /// Some path of the list is the value or one of its parents.
        PMatch = "pmatch",
    }
}

/// What may stand to the right of an operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpGroup {
    /// A number.
    Number,
    /// One value, or a list behind a modifier.
    Text,
    /// A list.
    List,
}

impl Op {
    /// The grammar's group.
    pub fn group(self) -> OpGroup {
        match self {
            Self::Le | Self::Lt | Self::Ge | Self::Gt => OpGroup::Number,
            Self::EqEq
            | Self::Eq
            | Self::Ne
            | Self::Glob
            | Self::IGlob
            | Self::Contains
            | Self::IContains
            | Self::BContains
            | Self::StartsWith
            | Self::BStartsWith
            | Self::EndsWith
            | Self::Regex => OpGroup::Text,
            Self::Intersects | Self::In | Self::PMatch => OpGroup::List,
        }
    }

    /// `==` and `=` are the same comparison.
    #[must_use]
    pub fn normal(self) -> Self {
        if self == Self::EqEq { Self::Eq } else { self }
    }
}

words! {
    /// How many of several right-hand values must satisfy the operator.
    Modifier {
        /// Exactly one.
        OneOf = "oneof",
        /// At least one.
        AnyOf = "anyof",
        /// Each.
        AllOf = "allof",
    }
}

words! {
    /// A function on values.
    Transformer {
        /// ASCII lower case.
        ToLower = "tolower",
        /// ASCII upper case.
        ToUpper = "toupper",
        /// Decodes base64.
        B64 = "b64",
        /// The last component of a path.
        Basename = "basename",
        /// Number of elements or bytes.
        Len = "len",
        /// Joins a list with a separator.
        Join = "join",
        /// Puts texts behind each other.
        Concat = "concat",
        /// Options of a command line, as getopt(3) sees them.
        Getopt = "getopt",
        /// The plain value of a field, on the right-hand side.
        Val = "val",
    }
}

impl Expr {
    /// Where it was written.
    pub fn at(&self) -> At {
        match self {
            Self::And(_, at) | Self::Or(_, at) | Self::Not(_, at) | Self::Macro(_, at) => *at,
            Self::Check(check) => check.at,
        }
    }

    /// Every comparison, in the order in which they are written. Macros are not looked into.
    pub fn checks(&self) -> impl Iterator<Item = &Check> {
        let mut open = vec![self];
        std::iter::from_fn(move || {
            loop {
                match open.pop()? {
                    Self::And(parts, _) | Self::Or(parts, _) => open.extend(parts.iter().rev()),
                    Self::Not(inner, _) => open.push(inner),
                    Self::Macro(..) => {}
                    Self::Check(check) => return Some(&**check),
                }
            }
        })
    }
}

impl Operand {
    /// Where it was written.
    pub fn at(&self) -> At {
        match self {
            Self::Field(field) => field.at,
            Self::Call(call) => call.at,
            Self::Literal(literal) => literal.at,
            Self::List(_, at) => *at,
        }
    }

    /// Calls `visit` for every field in it.
    pub fn fields<'a>(&'a self, visit: &mut impl FnMut(&'a FieldRef)) {
        match self {
            Self::Field(field) => visit(field),
            Self::Call(call) => call.args.iter().for_each(|arg| arg.fields(visit)),
            Self::Literal(_) => {}
            Self::List(items, _) => items.iter().for_each(|item| item.fields(visit)),
        }
    }
}
