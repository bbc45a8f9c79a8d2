//! Verifies the table: each chain, from its lines, and each column against its line.

use std::time::SystemTime;

use serde_json::value::RawValue;
use tokio_postgres::{
    Row,
    types::{Timestamp, Type},
};

use super::{
    columns::{Columns, TEXTS, is_stored},
    names::Names,
    session::{Parameter, Session, get},
};
use crate::{
    copy::{CopiedLine, CopyChecker, CopyFindingKind, CopyReport},
    sink::{Gap, SinkError},
};

/// The columns of [`Names::next_rows`] before the texts.
const FIRST_TEXT: usize = 7;

pub(super) async fn verify(
    session: &Session,
    names: &Names,
    mut checker: CopyChecker,
) -> Result<CopyReport, SinkError> {
    session.begin_reading().await?;
    for row in session.query("read the gaps", &names.list_gaps(), &[]).await? {
        let (chain_id, chain): (&str, i16) = (get(&row, 0)?, get(&row, 1)?);
        let (first, last): (i64, i64) = (get(&row, 2)?, get(&row, 3)?);
        if let (Ok(chain), Ok(first_seq), Ok(last_seq)) =
            (chain.try_into(), first.try_into(), last.try_into())
        {
            checker.gap(&Gap { chain_id: chain_id.into(), chain, first_seq, last_seq });
        }
    }
    let mut next = chain_of(session, &names.first_chain(), &[]).await?;
    while let Some(chain_id) = next {
        verify_chain(session, names, &chain_id, &mut checker).await?;
        next = chain_of(session, &names.next_chain(), &[(&chain_id, Type::TEXT)]).await?;
    }
    session.rollback().await?;
    Ok(checker.finish())
}

async fn chain_of(
    session: &Session,
    statement: &str,
    parameters: &[Parameter<'_>],
) -> Result<Option<String>, SinkError> {
    let rows = session.query("list the chains", statement, parameters).await?;
    rows.first().map_or(Ok(None), |row| get(row, 0))
}

async fn verify_chain(
    session: &Session,
    names: &Names,
    chain_id: &str,
    checker: &mut CopyChecker,
) -> Result<(), SinkError> {
    let statement = names.next_rows();
    let mut last: (i64, Timestamp<SystemTime>) = (i64::MIN, Timestamp::NegInfinity);
    // The number of the chain according to earlier rows, until a line shows it.
    let mut number = None;
    loop {
        let after =
            [(&chain_id as _, Type::TEXT), (&last.0 as _, Type::INT8), (&last.1 as _, Type::TIMESTAMPTZ)];
        let rows = session.query("read records", &statement, &after).await?;
        let Some(end) = rows.last() else { return Ok(()) };
        last = (get(end, 0)?, get::<Option<_>>(end, 1)?.unwrap_or(Timestamp::PosInfinity));
        for row in &rows {
            verify_row(row, chain_id, &mut number, checker)?;
        }
    }
}

fn verify_row(
    row: &Row,
    chain_id: &str,
    number: &mut Option<i16>,
    checker: &mut CopyChecker,
) -> Result<(), SinkError> {
    let key = u64::try_from(get::<i64>(row, 0)?).unwrap_or_default();
    // Somebody who changed the table may have allowed nulls.
    let (hash, bytes): (Option<&[u8]>, Option<&[u8]>) = (get(row, 4)?, get(row, 5)?);
    let (hash, bytes) = (hash.unwrap_or_default(), bytes.unwrap_or_default());
    let chain: Option<i16> = get(row, 3)?;
    let line = match CopiedLine::parse(bytes) {
        Ok(line) => line,
        // The columns are not compared with a line that cannot be trusted.
        Err(bad) => {
            checker.bad(chain_id, Some(key), bytes, bad);
            return Ok(());
        }
    };
    checker.parsed(chain_id, &line);
    let said = checker.number(chain_id).and_then(|said| i16::try_from(said).ok());
    let expected = said.or(*number).or(chain);
    *number = expected;
    let mut differ = |is_same: bool, name| {
        if !is_same {
            checker.finding(chain_id, line.seq, CopyFindingKind::Column { name });
        }
    };
    let columns = Columns::of(&line);
    differ(key == line.seq, "seq");
    differ(chain == expected, "chain");
    differ(hash == line.hash.as_bytes(), "hash");
    differ(get::<Option<Timestamp<SystemTime>>>(row, 1)? == Some(columns.at), "ts");
    differ(get::<Option<i16>>(row, 2)? == Some(columns.nanos), "ts_nanos");
    let fields = match (get::<Option<&str>>(row, 6)?, &columns.fields) {
        (Some(printed), Some(fields)) => {
            serde_json::from_str::<&RawValue>(printed).is_ok_and(|printed| is_stored(fields, printed))
        }
        (None, None) => true,
        _ => false,
    };
    differ(fields, "fields");
    for ((name, text), place) in TEXTS.iter().zip(&columns.texts).zip(FIRST_TEXT..) {
        differ(get::<Option<&str>>(row, place)? == text.as_deref(), name);
    }
    Ok(())
}
