-- A spelling is stored as it is compared: trimmed, in lower case, without white space.
select spelling
from {{ ref('units') }}
where spelling <> regexp_replace(lower(spelling), '\s', '', 'g')
