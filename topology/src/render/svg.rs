//! The topology as a picture that needs nothing else: one SVG, no script, no font, no link.

use std::{collections::HashMap, fmt::Write as _};

use super::{count, fabric, is_fallback, link, placement};
use crate::model::{Mirror, Site, Topology};

const CARD_WIDTH: usize = 236;
const COLUMN: usize = CARD_WIDTH + 120;
const ROW_GAP: usize = 22;
const MARGIN: usize = 28;
const HEADER: usize = 62;
const LINE: usize = 17;
/// How far a curve over other columns bows below the cards.
const BOW: usize = 60;
/// Height of a card without its list.
const CARD_TOP: usize = 58;

/// Border and tint of a region's cards; regions beyond the eighth begin again.
const PALETTE: [(&str, &str); 8] = [
    ("#2563eb", "#eff6ff"),
    ("#d97706", "#fffbeb"),
    ("#059669", "#ecfdf5"),
    ("#7c3aed", "#f5f3ff"),
    ("#db2777", "#fdf2f8"),
    ("#0891b2", "#ecfeff"),
    ("#65a30d", "#f7fee7"),
    ("#dc2626", "#fef2f2"),
];

const STYLE: &str = "text{font-family:system-ui,'Segoe UI',Helvetica,Arial,sans-serif;fill:#0f172a}\
    .title{font-size:20px;font-weight:600}.sub{font-size:12px;fill:#64748b}\
    .name{font-size:15px;font-weight:600}.item{font-size:12px;fill:#334155}\
    .link{font-size:11px;fill:#475569;paint-order:stroke;stroke:#fff;stroke-width:4px}\
    .edge{fill:none;stroke:#64748b;stroke-width:2}\
    .spare{fill:none;stroke:#cbd5e1;stroke-width:1.5;stroke-dasharray:5 4}";

/// One box of the picture.
struct Card<'a> {
    name: &'a str,
    region: &'a str,
    title: String,
    lines: Vec<String>,
    /// Names of the nodes, drawn as dots; none for a mirror.
    nodes: Vec<&'a str>,
    column: usize,
    /// Top edge.
    y: usize,
}

impl Card<'_> {
    fn height(&self) -> usize {
        let dots = if self.nodes.is_empty() { 0 } else { 30 };
        CARD_TOP + dots + LINE * self.lines.len()
    }

    fn x(&self) -> usize {
        MARGIN + self.column * COLUMN
    }

    fn middle(&self) -> usize {
        self.y + self.height() / 2
    }
}

/// The deployment as a self-contained SVG: sites at the left, one column for each hop away from
/// them, solid curves from parents in use, dashed ones from fallbacks, one colour a region.
#[must_use]
pub fn svg(topology: &Topology) -> String {
    let cards = lay_out(topology);
    let columns = cards.iter().map(|card| card.column + 1).max().unwrap_or(1);
    let bottom = cards.iter().map(|card| card.y + card.height()).max().unwrap_or(HEADER);
    let (width, height) = (2 * MARGIN + columns * COLUMN - (COLUMN - CARD_WIDTH), bottom + BOW);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         width=\"{width}\" height=\"{height}\" role=\"img\" aria-label=\"topology {}\">\n\
         <style>{STYLE}</style>\n<rect width=\"{width}\" height=\"{height}\" fill=\"#fff\"/>\n",
        topology.name
    );
    let summary = [
        count(topology.sites.len(), "site"),
        count(topology.mirrors.len(), "mirror"),
        count(topology.pools.len(), "pool"),
    ];
    _ = writeln!(
        out,
        "<text class=\"title\" x=\"{MARGIN}\" y=\"34\">{}</text>\n\
         <text class=\"sub\" x=\"{MARGIN}\" y=\"52\">{}</text>",
        topology.name,
        summary.join(" · ")
    );
    let by_name: HashMap<&str, &Card<'_>> = cards.iter().map(|card| (card.name, card)).collect();
    let card = |name: &str| by_name[name];
    let edges = topology.mirrors.iter().flat_map(|mirror| {
        let to = card(mirror.name.as_str());
        mirror.parents.iter().map(move |parent| {
            let spare = parent != &mirror.parents[0] && is_fallback(topology, mirror, parent);
            (spare, card(parent.name()), to)
        })
    });
    // Fallbacks first, so that they lie under the edges in use.
    let (spare, used): (Vec<_>, Vec<_>) = edges.partition(|(spare, ..)| *spare);
    for (spare, from, to) in spare.into_iter().chain(used) {
        edge(from, to, if spare { "spare" } else { "edge" }, &mut out);
    }
    for mirror in &topology.mirrors {
        let card = by_name[mirror.name.as_str()];
        let (x, y, text) = (card.x() - 8, card.middle() - 7, link(mirror.link));
        _ = writeln!(
            out,
            "<text class=\"link\" x=\"{x}\" y=\"{y}\" text-anchor=\"end\">{text}</text>"
        );
    }
    let mut regions: Vec<&str> = Vec::new();
    for card in &cards {
        let index = regions.iter().position(|own| *own == card.region).unwrap_or_else(|| {
            regions.push(card.region);
            regions.len() - 1
        });
        draw(card, PALETTE[index % PALETTE.len()], &mut out);
    }
    out + "</svg>\n"
}

/// Depth-first from each site: a card begins below what its elder siblings' families take, and is
/// centred on its own family.
fn lay_out(topology: &Topology) -> Vec<Card<'_>> {
    let mut cards: Vec<Card<'_>> = Vec::new();
    let mut next_y = HEADER + 10;
    for site in &topology.sites {
        let first = cards.len();
        // (card, column) in depth-first order; a stack, since chains may be long.
        let mut stack: Vec<(Card<'_>, usize)> = vec![(site_card(topology, site), 0)];
        while let Some((mut card, column)) = stack.pop() {
            card.column = column;
            let children: Vec<&Mirror> = topology.children(card.name).collect();
            stack.extend(children.into_iter().rev().map(|child| (mirror_card(child), column + 1)));
            cards.push(card);
        }
        next_y = place(&mut cards[first..], next_y) + ROW_GAP;
    }
    cards
}

/// Gives each card of one family its `y`, in depth-first order; returns the bottom of them all.
fn place(cards: &mut [Card<'_>], top: usize) -> usize {
    let columns = cards.iter().map(|card| card.column).max().unwrap_or(0) + 1;
    // Lowest free y of each column.
    let mut free = vec![top; columns];
    for index in 0..cards.len() {
        let column = cards[index].column;
        let is_leaf = cards.get(index + 1).is_none_or(|next| next.column <= column);
        let floor = free[column..].iter().copied().max().unwrap_or(top);
        let y = if is_leaf { floor } else { free[column] };
        cards[index].y = y;
        free[column] = y + cards[index].height() + ROW_GAP;
    }
    // A parent moves down to the middle of its children, never up into its elder sibling.
    for index in (0..cards.len()).rev() {
        let column = cards[index].column;
        let family = cards[index + 1..].iter().take_while(|card| card.column > column);
        let children: Vec<usize> =
            family.filter(|card| card.column == column + 1).map(Card::middle).collect();
        if let (Some(first), Some(last)) = (children.first(), children.last()) {
            let centred = usize::midpoint(*first, *last).saturating_sub(cards[index].height() / 2);
            cards[index].y = cards[index].y.max(centred);
        }
    }
    // A card taller than its family may now reach into the next one of its column.
    let mut free = vec![top; columns];
    for card in cards.iter_mut() {
        card.y = card.y.max(free[card.column]);
        free[card.column] = card.y + card.height() + ROW_GAP;
    }
    cards.iter().map(|card| card.y + card.height()).max().unwrap_or(top)
}

fn site_card<'a>(topology: &'a Topology, site: &'a Site) -> Card<'a> {
    let pools = topology.pools_of(&site.name);
    Card {
        name: site.name.as_str(),
        region: site.region.as_str(),
        title: format!("site · {} · {}", site.region, fabric(site)),
        lines: pools.map(|p| format!("{}  {}", p.name, placement(p.shards, p.replicas))).collect(),
        nodes: site.present().map(|(_, node)| node.name.as_str()).collect(),
        column: 0,
        y: 0,
    }
}

fn mirror_card(mirror: &Mirror) -> Card<'_> {
    Card {
        name: mirror.name.as_str(),
        region: mirror.region.as_str(),
        title: format!("mirror · {} · {}", mirror.region, mirror.ports.client()),
        lines: mirror.pools.iter().map(ToString::to_string).collect(),
        nodes: Vec::new(),
        column: 0,
        y: 0,
    }
}

fn edge(from: &Card<'_>, to: &Card<'_>, class: &str, out: &mut String) {
    if to.column == from.column + 1 {
        let (x1, y1, x2, y2) = (from.x() + CARD_WIDTH, from.middle(), to.x(), to.middle());
        let bend = usize::midpoint(x1, x2);
        _ = writeln!(
            out,
            "<path class=\"{class}\" d=\"M{x1} {y1}C{bend} {y1} {bend} {y2} {x2} {y2}\"/>"
        );
    } else {
        // Over other columns, or back: below the cards, from bottom edge to bottom edge.
        let end = |card: &Card<'_>| (card.x() + CARD_WIDTH / 2, card.y + card.height());
        let ((x1, y1), (x2, y2)) = (end(from), end(to));
        let low = y1.max(y2) + BOW;
        _ = writeln!(
            out,
            "<path class=\"{class}\" d=\"M{x1} {y1}C{x1} {low} {x2} {low} {x2} {y2}\"/>"
        );
    }
}

fn draw(card: &Card<'_>, (border, tint): (&str, &str), out: &mut String) {
    let (x, y, height) = (card.x(), card.y, card.height());
    _ = writeln!(
        out,
        "<rect x=\"{x}\" y=\"{y}\" width=\"{CARD_WIDTH}\" height=\"{height}\" rx=\"10\" \
         fill=\"{tint}\" stroke=\"{border}\" stroke-width=\"1.5\"/>\n\
         <text class=\"name\" x=\"{0}\" y=\"{1}\">{2}</text>\n\
         <text class=\"sub\" x=\"{0}\" y=\"{3}\">{4}</text>",
        x + 14,
        y + 24,
        card.name,
        y + 42,
        card.title
    );
    let mut line_y = y + CARD_TOP + 5;
    if !card.nodes.is_empty() {
        dots(card, border, line_y + 4, out);
        line_y += 30;
    }
    for line in &card.lines {
        _ = writeln!(out, "<text class=\"item\" x=\"{}\" y=\"{line_y}\">{line}</text>", x + 14);
        line_y += LINE;
    }
}

/// The nodes of a site: a dot and a name each, as many as fit, then how many more.
fn dots(card: &Card<'_>, border: &str, y: usize, out: &mut String) {
    let mut x = card.x() + 20;
    let end = card.x() + CARD_WIDTH;
    for (index, node) in card.nodes.iter().enumerate() {
        let width = 22 + 8 * node.len();
        if x + width + 30 > end && index + 1 < card.nodes.len() {
            let more = card.nodes.len() - index;
            _ = writeln!(out, "<text class=\"item\" x=\"{}\" y=\"{y}\">+{more}</text>", x - 4);
            return;
        }
        _ = writeln!(
            out,
            "<circle cx=\"{x}\" cy=\"{}\" r=\"5\" fill=\"{border}\"/>\
             <text class=\"item\" x=\"{}\" y=\"{y}\">{node}</text>",
            y - 4,
            x + 9
        );
        x += width;
    }
}
