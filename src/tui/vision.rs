//! Colours as colour-blind eyes see them, to check palettes with: Machado, Oliveira & Fernandes 2009, severity 1.

use super::ramp::Rgb;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vision {
    Full,
    Protanopia,
    Deuteranopia,
    Tritanopia,
}

impl Vision {
    pub const ALL: [Vision; 4] = [Vision::Full, Vision::Protanopia, Vision::Deuteranopia, Vision::Tritanopia];
}

/// The colour that looks the same to a full-sighted eye as `colour` does to `vision`.
pub fn seen_by(vision: Vision, colour: Rgb) -> Rgb {
    let matrix: [[f32; 3]; 3] = match vision {
        Vision::Full => return colour,
        Vision::Protanopia => {
            [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
        }
        Vision::Deuteranopia => {
            [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
        }
        Vision::Tritanopia => {
            [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
        }
    };
    let c = colour.linear();
    Rgb::from_linear(matrix.map(|row| row[0] * c[0] + row[1] * c[1] + row[2] * c[2]))
}
