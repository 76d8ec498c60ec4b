//! What a filter is made of, by name: for listings.

use std::collections::BTreeSet;

use super::ast::{Expr, Literal, Operand, Right, Test};

/// Names in a filter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Details {
    /// Fields, without arguments.
    pub fields: BTreeSet<String>,
    /// Macros.
    pub macros: BTreeSet<String>,
    /// Operators as written.
    pub operators: BTreeSet<String>,
    /// Transformers.
    pub transformers: BTreeSet<String>,
    /// Constants; before lists are put in, their names are among them.
    pub constants: BTreeSet<String>,
}

/// Collects the names of a filter.
pub fn details(expr: &Expr) -> Details {
    let mut details = Details::default();
    let mut open = vec![expr];
    while let Some(expr) = open.pop() {
        match expr {
            Expr::And(parts, _) | Expr::Or(parts, _) => open.extend(parts),
            Expr::Not(inner, _) => open.push(inner),
            Expr::Macro(name, _) => {
                details.macros.insert(name.to_string());
            }
            Expr::Check(check) => {
                details.operand(&check.left);
                details.test(&check.test);
            }
        }
    }
    details
}

impl Details {
    fn test(&mut self, test: &Test) {
        let Test::Compare { op, right, .. } = test else {
            self.operators.insert("exists".to_owned());
            return;
        };
        self.operators.insert(op.word().to_owned());
        match right {
            Right::Value(literal) => self.constant(literal),
            Right::List(items, _) => items.iter().for_each(|item| self.constant(item)),
            Right::Operand(operand) => self.operand(operand),
        }
    }

    fn constant(&mut self, literal: &Literal) {
        self.constants.insert(String::from_utf8_lossy(&literal.bytes).into_owned());
    }

    fn operand(&mut self, operand: &Operand) {
        match operand {
            Operand::Field(field) => {
                self.fields.insert(field.name.to_string());
            }
            Operand::Call(call) => {
                self.transformers.insert(call.transformer.word().to_owned());
                call.args.iter().for_each(|arg| self.operand(arg));
            }
            Operand::Literal(_) => {}
            Operand::List(items, _) => items.iter().for_each(|item| self.operand(item)),
        }
    }
}
